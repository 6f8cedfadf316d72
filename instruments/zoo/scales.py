"""Another guidance scale without unicb: in a call's arguments, or in its loop while it runs."""

from __future__ import annotations

import ctypes
import inspect
import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

from unicb.pipelines import PipelineFacts

#: Scales of a second model, or of a first and a last frame, which are arguments of their own.
_MORE = {"guidance_scale": ("guidance_scale_2", "min_guidance_scale", "max_guidance_scale")}


def argument_of(facts: PipelineFacts) -> str:
    """Return the name that the guidance scale has in calls of the pipeline."""
    return "true_cfg_scale" if "true_cfg_scale" in facts.scale_names else "guidance_scale"


def called_with(
    pipeline: Any, facts: PipelineFacts, arguments: Mapping[str, Any], scale: float
) -> dict[str, Any]:
    """Return the arguments of a call with another guidance scale, or with that for all of its
    scales."""
    taken = inspect.signature(type(pipeline).__call__).parameters
    name = argument_of(facts)
    names = [name] if name in taken else []
    names += [more for more in _MORE.get(name, ()) if more in taken and more != "guidance_scale_2"]
    names += [more for more in ("guidance_scale_2",) if arguments.get(more) is not None]
    return {**arguments, **dict.fromkeys(names, scale)}


def scale_in(pipeline: Any, facts: PipelineFacts, arguments: Mapping[str, Any]) -> float | None:
    """Return the scale of a call; None if its arguments do not tell."""
    taken = inspect.signature(type(pipeline).__call__).parameters
    for name in (argument_of(facts), "max_guidance_scale"):
        found = arguments.get(name, getattr(taken.get(name), "default", None))
        if isinstance(found, int | float):
            return float(found)
    return None


def another(facts: PipelineFacts, scale: float) -> float:
    """Return another scale than that of a call, with which its class guides, too."""
    least = max(facts.guided_above, 0.0)
    return least + 0.25 * (scale - least) if scale > least else least + 2.0


def set_in_loop(
    pipeline: Any, facts: PipelineFacts, scale: float, followers: Sequence[str]
) -> None:
    """Give the loop that is calling us another scale, from its next step on.

    It gets it in all places where it may have it: the attribute, and the locals of its frame. A
    tensor with one scale for each step gets it throughout.

    Args:
        followers: further attributes that have the same scale in this call.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not _is_loop(frame, pipeline):
        frame = frame.f_back
    assert frame is not None, "no loop is calling"
    own = argument_of(facts)
    if own == "guidance_scale":
        for name in ("_guidance_scale", *followers):
            setattr(pipeline, name, scale)
    here = frame.f_locals
    for name in (own, "guidance_scale_2"):
        if isinstance(here.get(name), int | float):
            here[name] = scale
    if "gw" in here:  # Ideogram 4's weights, one for each step
        here["gw"][:] = scale
    ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))


def _is_loop(frame: FrameType, pipeline: Any) -> bool:
    """Return whether a frame is that of the pipeline's call, or of one inside it."""
    if "callback_on_step_end_tensor_inputs" in frame.f_locals:
        return True
    return frame.f_code.co_name == "__call__" and frame.f_locals.get("self") is pipeline
