"""Copy models of runtimes that keep what their call works with: two threads need one each.

Nothing is imported for it: an object is asked as the libraries ask it that wrap a runtime's.
"""

from __future__ import annotations

import copy
from typing import Any


def separate(model: Any, made: dict[int, Any]) -> Any:
    """Return the model itself; where it, or a part of it, keeps the buffers of its call, another
    one of the same weights with buffers of its own.

    Args:
        model: of any kind.
        made: what was made of others before, by their ids, so that a part of two stays one.
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
    """Copy those of the model's attributes that keep a request or a binding, as a VAE's decoder and
    encoder."""
    return {
        name: separate(part, made)
        for name, part in getattr(model, "__dict__", {}).items()
        if _keeps_a_request(part) or _keeps_a_binding(part)
    }


def _buffers(model: Any) -> dict[str, Any]:
    """Make the buffers that another model is to have of its own, by the names of attributes."""
    if _keeps_a_request(model):
        if model.request is None:
            model.compile()
        # A second handle on what was compiled: OpenVINO's makes a request for itself.
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
