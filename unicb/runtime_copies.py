"""Copy models of runtimes that keep the buffers of a call: two threads need a model each.

Nothing is imported for this: objects are recognized by the attributes of the libraries that wrap a
runtime.
"""

from __future__ import annotations

import copy
from typing import Any


def separate(model: Any, made: dict[int, Any]) -> Any:
    """Return the model itself; or, if the model or a part of it keeps the buffers of a call, a copy
    on the same weights with buffers of its own.

    Args:
        model: any model.
        made: copies made before, by the ids of their originals, so that a part shared by two models
            stays shared.
    """
    if id(model) not in made:
        own = _buffers(model) or _parts(model, made)
        made[id(model)] = _with(model, own) if own else model
    return made[id(model)]


def _with(model: Any, attributes: dict[str, Any]) -> Any:
    other = copy.copy(model)
    vars(other).update(attributes)
    return other


def _parts(model: Any, made: dict[int, Any]) -> dict[str, Any]:
    """Copy the model's attributes that keep a request or a binding, such as a VAE's decoder and
    encoder."""
    return {
        name: separate(part, made)
        for name, part in getattr(model, "__dict__", {}).items()
        if _keeps_a_request(part) or _keeps_a_binding(part)
    }


def _buffers(model: Any) -> dict[str, Any]:
    """Make a copy's own buffers, by the names of the attributes that hold them."""
    if _keeps_a_request(model):
        if model.request is None:
            model.compile()
        # A second handle on the compiled model: OpenVINO gives it a request of its own.
        return {"request": type(model.request)(model.request)}
    if _keeps_a_binding(model):
        return {"_io_binding": model.session.io_binding()}
    return {}


def _keeps_a_request(model: Any) -> bool:
    """Return whether the model is a part of a pipeline of optimum-intel (2.2.0,
    ``OVPipelinePart``): it calls a ``CompiledModel``, which has one request for all calls."""
    has = getattr(model, "__dict__", {})
    if "request" not in has or not hasattr(model, "compile"):
        return False
    if has["request"] is None:
        return hasattr(model, "clear_requests")
    return hasattr(has["request"], "create_infer_request")


def _keeps_a_binding(model: Any) -> bool:
    """Return whether the model is one of optimum-onnx (0.1.0, ``ORTSessionMixin``), which binds the
    inputs and outputs of all calls to one object."""
    has = getattr(model, "__dict__", {})
    return has.get("_io_binding") is not None and hasattr(has.get("session"), "io_binding")
