"""The framework that is installed here: an environment of these tests has exactly one."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeVar

T = TypeVar("T")
LIBRARIES = {"torch": "diffusers", "mindspore": "mindone.diffusers"}


def _installed() -> str:
    found = [name for name in LIBRARIES if find_spec(name) is not None]
    if len(found) != 1:
        raise RuntimeError(
            f"these tests need an environment with one of {' and '.join(LIBRARIES)}; "
            f"this one has {' and '.join(found) or 'neither'}"
        )
    return found[0]


NAME = _installed()
framework: Any = import_module(NAME)
diffusers: Any = import_module(LIBRARIES[NAME])
harness: Any = import_module(f"unicb_{NAME}.harness").harness
backend = harness.backend
#: Name of the method that a module's call runs.
FORWARD: str = harness.call_name


def on(*, torch: T, mindspore: T) -> T:
    """The value for this framework."""
    return {"torch": torch, "mindspore": mindspore}[NAME]


def make_ready() -> None:
    """Give MindSpore's CPU what mindone needs. Tests of that itself take it away again."""
    if NAME == "mindspore":
        import_module("unicb_mindspore").enable_cpu()


#: A tensor of a numpy array.
tensor: Any = getattr(framework, on(torch="from_numpy", mindspore="Tensor"))


def layers(model: Any) -> list[Any]:
    """The model itself, and every module in it."""
    every = getattr(model, on(torch="named_modules", mindspore="cells_and_names"))
    return [layer for _, layer in every()]


def weights(model: Any) -> dict[str, Any]:
    """Copies of what the model has learnt, on the host."""
    named = getattr(model, on(torch="state_dict", mindspore="parameters_dict"))()
    return {name: backend.ops.to_numpy(value).copy() for name, value in named.items()}
