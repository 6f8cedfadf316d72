"""Recognise models that were exported for one fixed number of rows, from their runtimes.

Nothing is imported for this: a runtime's object is read as the libraries read it that wrap it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

#: Exporters' names for the input that is denoised.
_SAMPLES = ("sample", "hidden_states", "latent_model_input", "x")


def static_rows(model: Any) -> int | None:
    """Return the fixed number of rows that a model takes; None if it takes any number, or does not
    say."""
    for read in (_openvino, _onnx):
        try:
            shapes = dict(read(model))
        except (AttributeError, TypeError, ValueError, RuntimeError, LookupError):
            continue  # an object that only looks like a runtime's
        known = [shapes[name] for name in _SAMPLES if name in shapes]
        for rows in known or shapes.values():
            if isinstance(rows, int) and rows > 0:
                return rows
    return None


def _openvino(model: Any) -> Iterator[tuple[str, int | None]]:
    """Yield each input's name and number of rows, for an ``openvino.Model`` or a compiled one in
    the attribute ``model`` or ``request``. optimum-intel 2.2.0 reads them so in
    ``OVDiffusionPipeline.batch_size``."""
    found = next((x for x in _parts(model, "model", "request") if hasattr(x, "inputs")), None)
    for number, one in enumerate(() if found is None else found.inputs):
        shape = one.get_partial_shape()
        if shape.rank.is_dynamic or shape.rank.get_length() < 3:
            continue  # such as a timestep, which may be a single number for all rows
        name = _named(one.get_any_name, number)
        yield name, None if shape[0].is_dynamic else int(shape[0].get_length())


def _onnx(model: Any) -> Iterator[tuple[str, int | None]]:
    """Yield each input's name and number of rows, for an ``onnxruntime.InferenceSession`` in the
    attribute ``session`` (optimum-onnx 0.1.0, ``ORTSessionMixin``) or ``model``. The size of a
    dynamic axis is a name, or None."""
    session = next((x for x in _parts(model, "session", "model") if hasattr(x, "get_inputs")), None)
    for one in () if session is None else session.get_inputs():
        shape = one.shape
        if len(shape) >= 3:
            yield one.name, shape[0] if isinstance(shape[0], int) else None


def _parts(model: Any, *names: str) -> Iterator[Any]:
    for name in names:
        part = getattr(model, name, None)
        if part is not None and not isinstance(part, Mapping):
            yield part


def _named(name: Callable[[], str], number: int) -> str:
    try:
        return str(name())
    except RuntimeError:  # OpenVINO raises it for an input without a name
        return str(number)
