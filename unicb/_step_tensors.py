"""Check which tensors of a step a callback asks for, and what it writes over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from unicb._mistakes import most_like

if TYPE_CHECKING:
    from unicb.step import Step


def check_replacement(step: Step, name: str, value: Any, before: Any) -> None:
    """Check what a callback writes over a tensor of the loop.

    Raises:
        TypeError: it is no tensor of the pipeline's framework.
        ValueError: its shape is not one that the loop can go on with. That of latents stays as it
            is; of others, the number of rows may change, and of embeddings with three axes that of
            tokens.
    """
    is_tensor = step.run.is_tensor
    if not (is_tensor(value) or _are_tensors(value, is_tensor)):
        raise TypeError(
            f"{step._callback_name}: step[{name!r}] takes a tensor of the pipeline's "
            f"framework, not a {type(value).__qualname__}; step.ops.from_numpy turns a host "
            "array into one"
        )
    mine, theirs = getattr(value, "shape", None), getattr(before, "shape", None)
    if mine is None or theirs is None or mine == theirs:
        return
    free = 0 if name == "latents" else 2 if len(theirs) < 4 else 1
    if len(mine) != len(theirs) or tuple(mine)[free:] != tuple(theirs)[free:]:
        raise ValueError(
            f"{step._callback_name} writes {name} of shape {tuple(mine)} into the loop, which "
            f"works with {tuple(theirs)}"
        )


def undeclared(step: Step, name: str) -> LookupError:
    """Return what to raise where a callback asks for a tensor that it has not declared."""
    if step.index < 0:
        return LookupError(f"step[{name!r}]: before the first step, there are no tensors")
    known, offered = step._current[1], step.run.target.offered
    declared = ", ".join(known) or "none"
    near = most_like(str(name), known)
    if name in offered:
        instead = f"name it there, as in tensors = ({name!r},)"
    elif near:
        instead = f"write step[{near!r}]"
    else:
        instead = f"the pipeline offers {', '.join(offered)}"
    return LookupError(
        f"step[{name!r}]: {step._callback_name} declares {declared} in its `tensors`; {instead}"
    )


def _are_tensors(value: Any, is_tensor: Callable[[object], bool]) -> bool:
    """Return whether the value is a list of tensors, which ``image`` is with several ControlNets.
    It may have lists of tensors in it."""
    return isinstance(value, list | tuple) and all(
        is_tensor(item) or _are_tensors(item, is_tensor) for item in value
    )
