"""Recognise engines that spread a pipeline over ranks in a way that its loop does not show.

They replace a denoiser's call by code that asks the engine how the ranks divide the work. unicb
finds the engine's functions through that code, and asks the same. The names are those of xDiT
(``xfuser/core/distributed/parallel_state.py`` of 0.7.0), which other engines follow.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from types import CodeType
from typing import Any

from unicb.errors import UnsupportedPipelineError
from unicb.guidance._replaced import put_in_place

_CFG = "get_classifier_free_guidance_world_size"
_STAGES = "get_pipeline_parallel_world_size"


def check_halves_are_together(name: str, models: Sequence[Any]) -> None:
    """Raise UnsupportedPipelineError if the two halves of guidance are computed on different ranks.

    Args:
        name: name of the pipeline's class.
        models: the pipeline's denoisers.
    """
    for model in models:
        if (count := _asked(model, _CFG)) > 1:
            raise UnsupportedPipelineError(
                f"cannot cut guidance on this {name}: the call of its {type(model).__name__} gives "
                f"each of {count} ranks its part of the batch, the unconditional half to another "
                "than the conditional one. There is nothing to save, for both are computed at the "
                "same time; and what is left after a cut cannot be split. Leave out the callback "
                "that cuts guidance, or the CFG parallelism"
            )


def check_loop_calls_back(name: str, models: Sequence[Any]) -> None:
    """Raise UnsupportedPipelineError if the denoiser's layers are spread over ranks as the stages
    of a pipeline."""
    for model in models:
        if (count := _asked(model, _STAGES)) > 1:
            raise UnsupportedPipelineError(
                f"cannot bind callbacks to this {name}: its {type(model).__name__} is the stage of "
                f"one rank of {count} (PipeFusion), each works on other patches of other steps, "
                "and only the last has latents to hand to a callback. Take sequence parallelism "
                "(Ulysses, ring) or tensor parallelism, with which each rank has the whole step"
            )


def _asked(model: Any, name: str) -> int:
    """Return the result of the engine's function of this name, as used by the code that replaces
    the model's call; 1 if that code uses no such function, or the engine was not started."""
    for call in _calls(model):
        code, names = getattr(call, "__code__", None), getattr(call, "__globals__", {})
        ask = names.get(name)
        if code is None or not callable(ask) or name not in _names(code):
            continue
        try:
            return int(ask())
        except Exception:
            continue  # an assertion in it says that the engine was not started
    return 1


def _calls(model: Any) -> Iterator[Any]:
    yield from put_in_place(model)
    for base in type(model).__mro__:
        for name in ("forward", "construct", "__call__"):
            call = vars(base).get(name)
            while inspect.isfunction(call):
                yield call
                call = getattr(call, "__wrapped__", None)


def _names(code: CodeType) -> set[str]:
    """Return the names that a code object and the functions inside it use."""
    inner = [each for each in code.co_consts if isinstance(each, CodeType)]
    return {*code.co_names}.union(*map(_names, inner))
