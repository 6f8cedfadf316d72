"""Say what to write instead, where a callback or a call of ``bind`` was written wrongly.

Apart from the checks of ``bind``, nothing here runs unless there is a mistake.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unicb.checks import are_names, shown
from unicb.errors import BackendNotFoundError

#: What each hook of a Callback is handed.
HOOKS: Mapping[str, str] = {
    "needs": "target",
    "on_bind": "target",
    "before_first_step": "step",
    "on_run_start": "run",
    "on_step_end": "step",
    "on_run_end": "run",
    "on_report": "run",
}
_EACH_STEP = (
    "on_step_end is called at the end of each step, which is the beginning of the next, and "
    "before_first_step before the first"
)
#: Other libraries' names for hooks, and the name to write here.
_MEANT: Mapping[str, str] = {
    **dict.fromkeys(("on_step_start", "on_step_begin", "before_step", "on_step"), _EACH_STEP),
    **dict.fromkeys(("after_step", "step_end", "on_denoise_step_end"), "write on_step_end"),
    **dict.fromkeys(("on_run_begin", "on_start", "on_begin"), "write on_run_start"),
    **dict.fromkeys(("on_run_finish", "on_run_finished", "on_end"), "write on_run_end"),
    **dict.fromkeys(("before_first", "on_first_step"), "write before_first_step"),
}
#: Other libraries' names for attributes of a Step, and what to write here.
_OF_A_STEP: Mapping[str, str] = {
    **dict.fromkeys(("stop", "cancel", "finish", "abort"), "interrupt()"),
    **dict.fromkeys(("i", "step", "step_index", "number"), "index"),
    **dict.fromkeys(("t", "time"), "timestep"),
    **dict.fromkeys(("num_steps", "num_inference_steps", "total"), "num_timesteps"),
    **dict.fromkeys(("guidance", "cfg", "cfg_scale", "scale"), "guidance_scale"),
    **dict.fromkeys(("x0", "pred_x0", "pred_original_sample"), "denoised()"),
    "pipe": "pipeline",
}
_NO_ATTRIBUTE = re.compile(r"'(\w+)' object has no attribute '(\w+)'")
_NO_SETTER = re.compile(r"property '(\w+)' of 'Step' object has no setter")


def check_pipeline(pipeline: Any) -> None:
    """Raise BackendNotFoundError if ``bind`` is given a class, a text, a callback or a binding in
    place of a pipeline."""
    from unicb.binding import Binding
    from unicb.callback import Callback

    if isinstance(pipeline, type) and not hasattr(type(pipeline), "_unicb_framework_of"):
        name = pipeline.__name__
        raise BackendNotFoundError(
            f"bind() takes a pipeline object, and {name} is a class: write "
            f"bind({name}.from_pretrained(...), ...)"
        )
    if isinstance(pipeline, str):
        raise BackendNotFoundError(
            f"bind() takes a pipeline object, not the text {shown(pipeline)}: load it first, as "
            "in bind(StableDiffusionPipeline.from_pretrained(...), ...)"
        )
    if isinstance(pipeline, Callback):
        name = type(pipeline).__name__
        raise BackendNotFoundError(
            f"the pipeline comes first, and then callbacks: bind(pipe, {name}(...))"
        )
    if isinstance(pipeline, Binding):
        raise BackendNotFoundError(
            f"{pipeline!r} is bound already: call it, or give bind() its pipeline and all callbacks"
        )


def no_callback(callback: Any) -> TypeError:
    """Return the TypeError for an object among the callbacks that is neither Callback nor
    function."""
    kind = type(callback).__name__
    if isinstance(callback, list | tuple | set):
        return TypeError(
            f"bind() takes callbacks one by one, not a {kind} of them: write bind(pipe, *callbacks)"
        )
    if any(hasattr(callback, hook) for hook in HOOKS):
        return TypeError(
            f"{kind} has hooks of a callback, and is none: derive it from unicb.Callback, as in "
            f"class {kind}(Callback)"
        )
    return TypeError(f"bind() takes Callback objects and functions, not {shown(callback)}")


def check_no_pipeline(callback: Any, owns: Any) -> None:
    """Raise TypeError if a function among the callbacks is a pipeline, or a binding.

    Args:
        owns: the backend's :meth:`~unicb.backend.Backend.owns`, which is True for its pipelines.
    """
    from unicb.binding import Binding

    kind = type(callback).__name__
    if isinstance(callback, Binding):
        raise TypeError(
            f"bind() takes callbacks, not {callback!r}: give it the callbacks of both, in one call"
        )
    if not inspect.isroutine(callback) and owns(callback):
        raise TypeError(
            f"bind() takes one pipeline, and a second, a {kind}, is among the callbacks: call "
            "bind() for each"
        )


def check_function(function: Any) -> None:
    """Raise TypeError if a plain function does not take the frameworks' four arguments."""
    name = getattr(function, "__qualname__", type(function).__name__)
    if not _takes(function, 4):
        raise TypeError(
            f"the function {name}{inspect.signature(function)} is called with four arguments: "
            "write (pipeline, step_index, timestep, callback_kwargs); of a Callback, "
            "on_step_end(self, step) is called with one"
        )


def check_written(callback: Any) -> None:
    """Check a Callback whose class the user wrote: its ``tensors``, and that its hooks can be
    called.

    Raises:
        TypeError: ``tensors`` is no collection of names; a method's name is a misspelt hook's; or a
            hook does not take the arguments that unicb calls it with.
    """
    kind = type(callback)
    if not are_names(callback.tensors):
        raise TypeError(
            f"{kind.__name__}.tensors is {shown(callback.tensors)}; it must be a tuple of names, "
            "such as ('latents',)"
        )
    for own in _of_the_user(kind):
        for name, value in vars(own).items():
            if name in HOOKS:
                _check_takes(callback, kind.__name__, name)
            elif callable(value) and (meant := _meant(name)):
                raise TypeError(
                    f"{kind.__name__}.{name} is no hook, and nothing would call it: {meant}. (Of a "
                    "method of your own, begin the name with an underscore.)"
                )


def _of_the_user(kind: type) -> Iterator[type]:
    from unicb.callback import Callback

    for own in kind.__mro__:
        if issubclass(own, Callback) and own.__module__.partition(".")[0] != "unicb":
            yield own


def _meant(name: str) -> str | None:
    if name in _MEANT:
        return _MEANT[name]
    if name.startswith("_"):
        return None
    near = most_like(name, [*HOOKS][1:], 0.85)
    return f"write {near}" if near else None


def most_like(name: str, words: Sequence[str], cutoff: float = 0.6) -> str | None:
    """Return the word most similar to ``name``, which may be misspelt; None if no word is similar
    enough."""
    from difflib import get_close_matches  # imported only when there is a mistake

    return next(iter(get_close_matches(name, words, 1, cutoff)), None)


def _check_takes(callback: Any, kind: str, name: str) -> None:
    hook = getattr(callback, name)
    if _takes(hook, 1):
        return
    signature, instead = inspect.signature(hook), ""
    if len(signature.parameters) > 2:
        instead = (
            ". It is plain functions that are handed (pipeline, step_index, timestep, "
            "callback_kwargs): step has pipeline, index, timestep, and tensors by name"
        )
    raise TypeError(
        f"{kind}.{name}{signature} is called with one argument: write def {name}(self, "
        f"{HOOKS[name]}){instead}"
    )


def _takes(function: Any, count: int) -> bool:
    """Return whether ``function`` takes ``count`` positional arguments; True if that is not
    known."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # the function is not written in Python
        return True
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def check_returned(name: str, returned: Any, is_tensor: Any) -> None:
    """Raise TypeError if ``on_step_end`` returned tensors, which do not go into the loop that
    way."""
    if isinstance(returned, dict) or is_tensor(returned):
        kind = type(returned).__name__
        raise TypeError(
            f"{name}.on_step_end returned a {kind}, and what it returns goes nowhere: write it "
            "into the step, as in step['latents'] = latents"
        )


def say_what_to_write(error: AttributeError, name: str, step: Any) -> None:
    """Add to an error about an attribute of a step what to write instead.

    Args:
        error: the error, to whose message the advice is added.
        name: the callback's name in messages.
        step: the step that the callback was called with.
    """
    said = str(error)
    if found := _NO_SETTER.search(said):
        error.args = (f"{said}: step.{found[1]} is the loop's own, for callbacks to read",)
        return
    found = _NO_ATTRIBUTE.match(said)
    if found is None:
        return
    owner, attribute = found.groups()
    if owner == type(step.ops).__name__:
        error.args = (
            f"{said}: step.ops has chunk, concat, matmul, clamp, to_uint8, to_numpy and "
            "from_numpy; unicb.tensors has mean, std, norm, dot and lerp",
        )
    elif owner == "Step":
        error.args = (f"{said}: {_instead(attribute, name, step)}",)


def _instead(attribute: str, name: str, step: Any) -> str:
    if attribute in step.run.target.offered:
        return (
            f"tensors are read and written as step[{attribute!r}], by a callback that has tensors "
            f"= ({attribute!r},); here, that is {name}"
        )
    public = [each for each in dir(type(step)) if not each.startswith("_")]
    meant = _OF_A_STEP.get(attribute) or most_like(attribute, public)
    if meant is not None:
        return f"write step.{meant}"
    return f"it has {', '.join(public)}, and tensors as step['latents']"
