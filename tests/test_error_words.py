"""What people get wrong at first, and what they are told: what was asked, what was found, and what
to write."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable as Function
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unicb import (
    BackendNotFoundError,
    Callback,
    CFGCutoff,
    GuidanceSchedule,
    Interrupt,
    Preview,
    PromptSchedule,
    PromptWeights,
    UnsupportedPipelineError,
    bind,
)
from unicb.checks import shown
from unicb.sinks import FileSink
from unicb.streaming import stream
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline


def callback(on_step_end: Any, tensors: Any = ("latents",), **more: Any) -> Callback:
    """An object of a user's class with this method."""
    members = {"tensors": tensors, "on_step_end": on_step_end, "__module__": "theirs", **more}
    made: Callback = type("Mine", (Callback,), members)()
    return made


def run(*callbacks: Any) -> Any:
    pipe = ToyPipeline()
    return bind(pipe, *callbacks)("x", num_inference_steps=4)


def nothing(self: Any, step: Any) -> None:
    """A callback that does nothing."""


def write(make: Function[[Any], Any]) -> Callback:
    def on_step_end(self: Any, step: Any) -> None:
        step["latents"] = make(step["latents"])

    return callback(on_step_end)


def assign(name: str) -> Callback:
    return callback(lambda self, step: setattr(step, name, 3))


class NoBase:
    tensors = ("latents",)

    def on_step_end(self, step: Any) -> None: ...


HALF = "(1, 2, 8, 8)"
MISTAKES: dict[str, tuple[Function[[], Any], type[Exception], str]] = {
    # The pipeline, and what is bound to it.
    "a list of callbacks": (
        lambda: bind(ToyPipeline(), [CFGCutoff(0.4)]),  # type: ignore[arg-type]
        TypeError,
        "one by one, not a list of them: write bind(pipe, *callbacks)",
    ),
    "a tuple of callbacks": (
        lambda: bind(ToyPipeline(), (CFGCutoff(0.4),)),  # type: ignore[arg-type]
        TypeError,
        "not a tuple of them: write bind(pipe, *callbacks)",
    ),
    "a class instead of an object": (
        lambda: bind(ToyPipeline(), CFGCutoff),
        TypeError,
        "CFGCutoff is a class: write CFGCutoff(...)",
    ),
    "a callback without the base": (
        lambda: bind(ToyPipeline(), NoBase()),  # type: ignore[arg-type]
        TypeError,
        "NoBase has hooks of a callback, and is none: derive it from unicb.Callback, as in class "
        "NoBase(Callback)",
    ),
    "a tensor among the callbacks": (
        lambda: bind(ToyPipeline(), StrictTensor(np.zeros((2, 3)))),  # type: ignore[arg-type]
        TypeError,
        "functions, not a StrictTensor of shape (2, 3) and dtype float64",
    ),
    "two pipelines": (
        lambda: bind(ToyPipeline(), ToyPipeline()),  # type: ignore[arg-type]
        TypeError,
        "takes one pipeline, and a second, a ToyPipeline, is among the callbacks: call bind() for "
        "each",
    ),
    "a binding among the callbacks": (
        lambda: bind(ToyPipeline(), bind(ToyPipeline(), CFGCutoff(0.4))),
        TypeError,
        "not <Binding of ToyPipeline: CFGCutoff(0.4)>: give it the callbacks of both, in one call",
    ),
    "a binding for the pipeline": (
        lambda: bind(bind(ToyPipeline(), CFGCutoff(0.4)), Interrupt(2)),
        BackendNotFoundError,
        "is bound already: call it, or give bind() its pipeline and all callbacks",
    ),
    "a stream of a binding": (
        lambda: stream(bind(ToyPipeline(), CFGCutoff(0.4)), "x"),
        BackendNotFoundError,
        "<Binding of ToyPipeline: CFGCutoff(0.4)> is bound already",
    ),
    "callbacks first": (
        lambda: bind(CFGCutoff(0.4), ToyPipeline()),  # type: ignore[arg-type]
        BackendNotFoundError,
        "the pipeline comes first, and then callbacks: bind(pipe, CFGCutoff(...))",
    ),
    "the class of the pipeline": (
        lambda: bind(ToyPipeline, CFGCutoff(0.4)),
        BackendNotFoundError,
        "ToyPipeline is a class: write bind(ToyPipeline.from_pretrained(...), ...)",
    ),
    "the name of a checkpoint": (
        lambda: bind("some/checkpoint", CFGCutoff(0.4)),
        BackendNotFoundError,
        "not the text 'some/checkpoint': load it first, as in bind(StableDiffusionPipeline.from_",
    ),
    # How it is called.
    "callbacks(pipe, prompt)": (
        lambda: (lambda pipe: bind(pipe, CFGCutoff(0.4))(pipe, "x"))(ToyPipeline()),
        TypeError,
        "with what the pipeline would be called with, as in callbacks(prompt)",
    ),
    "callback_on_step_end=callbacks": (
        lambda: (lambda pipe: pipe("x", callback_on_step_end=bind(pipe, CFGCutoff(0.4))))(
            ToyPipeline()
        ),
        TypeError,
        "it is unpacked, as in pipe(prompt, **callbacks)",
    ),
    "callback_on_step_end=CFGCutoff(0.4)": (
        lambda: ToyPipeline()("x", callback_on_step_end=CFGCutoff(0.4)),
        TypeError,
        "write callbacks = bind(pipe, CFGCutoff(...)), and callbacks(prompt)",
    ),
    "wait('soon')": (
        lambda: bind(ToyPipeline(), Interrupt(2)).wait("soon"),  # type: ignore[arg-type]
        TypeError,
        "timeout must be a number, not 'soon'",
    ),
    # A callback of one's own.
    "on_step_start": (
        lambda: run(callback(nothing, on_step_start=nothing)),
        TypeError,
        "Mine.on_step_start is no hook, and nothing would call it: on_step_end is called at the "
        "end of each step, which is the beginning of the next, and before_first_step before",
    ),
    "on_step_begin": (
        lambda: run(callback(nothing, on_step_begin=nothing)),
        TypeError,
        "Mine.on_step_begin is no hook",
    ),
    "on_run_finished": (
        lambda: run(callback(nothing, on_run_finished=nothing)),
        TypeError,
        "write on_run_end. (Of a method of your own, begin the name with an underscore.)",
    ),
    "a hook with a letter too few": (
        lambda: run(callback(nothing, on_run_strt=nothing)),
        TypeError,
        "Mine.on_run_strt is no hook, and nothing would call it: write on_run_start",
    ),
    "a hook without its argument": (
        lambda: run(callback(lambda self: None)),
        TypeError,
        "Mine.on_step_end() is called with one argument: write def on_step_end(self, step)",
    ),
    "a hook with the arguments of a function": (
        lambda: run(callback(lambda self, pipe, i, t, kwargs: kwargs)),
        TypeError,
        "on_step_end(pipe, i, t, kwargs) is called with one argument: write def on_step_end(self, "
        "step). It is plain functions that are handed (pipeline, step_index, timestep, callback_",
    ),
    "another hook without its argument": (
        lambda: run(callback(nothing, on_run_end=lambda self: None)),
        TypeError,
        "write def on_run_end(self, run)",
    ),
    "a function with the argument of a hook": (
        lambda: run(lambda step: None),
        TypeError,
        "(step) is called with four arguments: write (pipeline, step_index, timestep, callback_",
    ),
    "a dict returned": (
        lambda: run(callback(lambda self, step: {"latents": step["latents"]})),
        TypeError,
        "Mine.on_step_end returned a dict, and what it returns goes nowhere: write it into the "
        "step, as in step['latents'] = latents",
    ),
    "a tensor returned": (
        lambda: run(callback(lambda self, step: step["latents"])),
        TypeError,
        "Mine.on_step_end returned a StrictTensor, and what it returns goes nowhere",
    ),
    "tensors misspelled": (
        lambda: run(callback(nothing, ("latent",))),
        UnsupportedPipelineError,
        "offers no tensor called 'latent' to callbacks; it offers: latents, prompt_embeds, neg",
    ),
    "tensors = None": (
        lambda: run(callback(nothing, None)),
        TypeError,
        "Mine.tensors is None; it must be a tuple of names, such as ('latents',)",
    ),
    "tensors forgotten": (
        lambda: run(callback(lambda self, step: step["latents"] and None, ())),
        LookupError,
        "Mine declares none in its `tensors`; name it there, as in tensors = ('latents',)",
    ),
    "a tensor misspelled in the step": (
        lambda: run(callback(lambda self, step: step["latnets"] and None)),
        LookupError,
        "step['latnets']: Mine declares latents in its `tensors`; write step['latents']",
    ),
    "a tensor that there is none of": (
        lambda: run(callback(lambda self, step: step["depth"] and None)),
        LookupError,
        "Mine declares latents in its `tensors`; the pipeline offers latents, prompt_embeds",
    ),
    "step.latents": (
        lambda: run(callback(lambda self, step: step.latents)),
        AttributeError,
        "tensors are read and written as step['latents'], by a callback that has tensors = "
        "('latents',); here, that is Mine",
    ),
    "step.latents = ...": (
        lambda: run(assign("latents")),
        AttributeError,
        "written as step['latents'], by a callback that has tensors = ('latents',); here, that is",
    ),
    "step.timestep = ...": (
        lambda: run(assign("timestep")),
        AttributeError,
        "step.timestep is the loop's own, for callbacks to read",
    ),
    "step.guidance = ...": (
        lambda: run(assign("guidance")),
        AttributeError,
        "write step.guidance_scale",
    ),
    "step.guidance_scale = a text": (
        lambda: run(callback(lambda self, step: setattr(step, "guidance_scale", "7"))),
        TypeError,
        "guidance_scale must be a number, not '7'",
    ),
    "step.stop()": (
        lambda: run(callback(lambda self, step: step.stop())),
        AttributeError,
        "write step.interrupt()",
    ),
    "step.progres": (
        lambda: run(callback(lambda self, step: step.progres)),
        AttributeError,
        "write step.progress",
    ),
    "step.ops.mean": (
        lambda: run(callback(lambda self, step: step.ops.mean(step["latents"]))),
        AttributeError,
        "to_numpy and from_numpy; unicb.tensors has mean, std, norm, dot and lerp",
    ),
    "run.state with a value": (
        lambda: run(callback(lambda self, step: step.run.state(self, []))),
        TypeError,
        "a function that makes what is kept, such as list or dict, not a list",
    ),
    # What is written.
    "a wrong shape": (
        lambda: run(write(lambda x: x[:, :2])),
        ValueError,
        f"Mine writes latents of shape {HALF} into the loop, which works with (1, 4, 8, 8)",
    ),
    "a wrong shape by a function": (
        lambda: run(lambda pipe, i, t, kwargs: {"latents": kwargs["latents"][:, :2]}),
        ValueError,
        f"<lambda> writes latents of shape {HALF} into the loop, which works with (1, 4, 8, 8)",
    ),
    "a host array": (
        lambda: run(write(lambda x: x.data)),
        TypeError,
        "Mine: step['latents'] takes a tensor of the pipeline's framework, not a ndarray; step.ops",
    ),
    "a host array by a function": (
        lambda: run(lambda pipe, i, t, kwargs: {"latents": kwargs["latents"].data}),
        TypeError,
        "<lambda>: step['latents'] takes a tensor of the pipeline's framework, not a ndarray",
    ),
    # Arguments.
    "Preview(evry=5)": (
        lambda: Preview("steps/{step}.png", evry=5),  # type: ignore[call-arg]
        TypeError,
        "Preview has no argument evry=; write every=",
    ),
    "CFGCutoff(ratio=0.4)": (
        lambda: CFGCutoff(ratio=0.4),  # type: ignore[call-arg]
        TypeError,
        "CFGCutoff has no argument ratio=; it takes cutoff_step_ratio, cutoff_step_index",
    ),
    "CFGCutoff(40)": (
        lambda: CFGCutoff(40),
        ValueError,
        "must lie in 0..1, not 40; to cut after step 40, write CFGCutoff(cutoff_step_index=40)",
    ),
    "CFGCutoff('0.4')": (
        lambda: CFGCutoff("0.4"),  # type: ignore[arg-type]
        TypeError,
        "cutoff_step_ratio must be a number, not '0.4'",
    ),
    "CFGCutoff()": (
        CFGCutoff,
        ValueError,
        "not neither: write CFGCutoff(0.4), or CFGCutoff(cutoff_step_index=8)",
    ),
    "Interrupt()": (
        Interrupt,
        ValueError,
        "Interrupt(12) stops after step 12, Interrupt(when=lambda step: ...) by an answer",
    ),
    "Interrupt(0.5)": (
        lambda: Interrupt(0.5),  # type: ignore[arg-type]
        TypeError,
        "not a share of the steps; for this, write Interrupt(when=lambda step: step.progress >= ",
    ),
    "Interrupt(a function)": (
        lambda: Interrupt(lambda step: True),  # type: ignore[arg-type]
        TypeError,
        "a condition is given by name: write Interrupt(when=...)",
    ),
    "Interrupt(when=... a tensor)": (
        lambda: run(Interrupt(when=lambda step: step["latents"])),
        TypeError,
        "a tensor of one element, not a StrictTensor of shape (1, 4, 8, 8) and dtype float32",
    ),
    "Interrupt(tensors='latents')": (
        lambda: Interrupt(when=lambda step: True, tensors="latents"),
        TypeError,
        "tensors takes names, not one: write ('latents',)",
    ),
    "GuidanceSchedule([7, 5])": (
        lambda: GuidanceSchedule([7, 5]),  # type: ignore[list-item]
        TypeError,
        "a schedule is a value, a function of the progress in 0..1, or a list of (progress, value)",
    ),
    "PromptSchedule([(prompt, progress)])": (
        lambda: PromptSchedule([("a cat", 0.5)]),  # type: ignore[list-item]
        TypeError,
        "a pair is the progress and then the prompt, as in (0.5, 'a cat'), not ('a cat', 0.5)",
    ),
    "PromptWeights([prompt])": (
        lambda: PromptWeights(["a cat"]),  # type: ignore[list-item]
        TypeError,
        "or a list of pairs like ('a cat', 0.5), not one of 'a cat'",
    ),
    # Previews.
    "a template without suffix": (
        lambda: Preview("steps/{step}"),
        ValueError,
        "which has no suffix: end it in .png, .webp or .jpg, and an animation in .webp or .gif",
    ),
    "a template of a film": (
        lambda: Preview("steps/{step}.mp4", frames="animation"),
        ValueError,
        "which has the suffix '.mp4': end it in .png",
    ),
    "a template with an unknown field": (
        lambda: Preview("steps/{step}-{i}.png"),
        ValueError,
        "its fields may be {step}, {image}, {num_timesteps}, {run}",
    ),
    "size='big'": (
        lambda: Preview([], size="big"),  # type: ignore[arg-type]
        TypeError,
        "size must be the longer side in pixels, an int, or (width, height), not 'big'",
    ),
    "decoder='taesd'": (
        lambda: Preview([], decoder="taesd"),  # type: ignore[arg-type]
        ValueError,
        "decoder must be 'vae', a model or a function, not 'taesd'",
    ),
    "factors='sd51'": (
        lambda: Preview([], factors="sd51"),
        ValueError,
        "factors='sd51' is no format and no file. Write 'fit', the name of a format (sd, sdxl",
    ),
    "factors=5": (
        lambda: Preview([], factors=5),  # type: ignore[arg-type]
        TypeError,
        "factors must be a LatentFormat, the name of a format, a TOML file with one, or 'fit', not",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.filterwarnings("ignore:.*was never called:RuntimeWarning")
def test_a_mistake_is_told_with_what_to_write(mistake: str) -> None:
    make, error, said = MISTAKES[mistake]
    with pytest.raises(error, match=re.escape(said)):
        make()


def test_interrupt_beyond_the_last_step() -> None:
    said = "Interrupt(100) has stopped nothing: the run's last step was 3, for steps are counted fr"
    with pytest.warns(UserWarning, match=re.escape(said)) as told:
        run(Interrupt(100))
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(Interrupt(3))


def test_a_sink_that_fails_is_named_with_the_line(pipe: ToyPipeline, tmp_path: Path) -> None:
    def show(frame: Any) -> None:
        frame.picture.show()

    with pytest.warns(RuntimeWarning, match="previews are off") as told:
        bind(pipe, Preview(show))("x")
    said = str(told[0].message)
    assert "the sink test_a_sink_that_fails_is_named_with_the_line.<locals>.show failed" in said
    assert "AttributeError: 'PreviewFrame' object has no attribute 'picture'" in said
    assert re.search(r"test_error_words.py, line \d+, in show: frame.picture.show\(\)\)$", said)

    (tmp_path / "file").write_text("in the way")
    with pytest.warns(RuntimeWarning, match=r"the sink FileSink failed at step 0: .*Error: .*file"):
        bind(pipe, Preview(FileSink(tmp_path / "file" / "{step}.png")))("x")


def test_a_decoder_that_fails_is_told_with_the_line(pipe: ToyPipeline) -> None:
    def decode(latents: Any) -> Any:
        return latents.nowhere

    with pytest.warns(RuntimeWarning, match=r"line \d+, in decode: return latents.nowhere"):
        bind(pipe, Preview([], decoder=decode))("x")


def test_what_may_change_its_shape() -> None:
    """Rows of embeddings, and their tokens: a callback of one's own may cut guidance by hand."""

    def on_step_end(self: Any, step: Any) -> None:
        if step.index == 3:
            step["prompt_embeds"] = step["prompt_embeds"][:1]

    run(callback(on_step_end, ("prompt_embeds",)))

    def narrower(self: Any, step: Any) -> None:
        step["prompt_embeds"] = step["prompt_embeds"].reshape((2, 4, 1))

    with pytest.raises(ValueError, match=r"Mine writes prompt_embeds of shape \(2, 4, 1\)"):
        run(callback(narrower, ("prompt_embeds",)))


def test_methods_and_results_of_ones_own_are_nobodys_business() -> None:
    """What is no hook's name and what is no tensor: helpers, and lambdas that append."""
    seen: list[int] = []

    def on_step_end(self: Any, step: Any) -> int:
        seen.append(step.index)
        return len(seen)

    own = callback(on_step_end, on_message=nothing, _on_step_start=nothing, on_train_end=nothing)
    run(own)
    assert seen == [0, 1, 2, 3]


def test_errors_of_ones_own_stay_as_they_are() -> None:
    def mine(self: Any, step: Any) -> None:
        raise AttributeError("mine")

    def others(self: Any, step: Any) -> None:
        _ = "text".latents  # type: ignore[attr-defined]

    class Raises(Callback):
        def __init__(self, **options: Any) -> None:
            dict().update(**options)
            int("3", bse=3)  # type: ignore[call-overload]

        def on_step_end(self, step: Any) -> None: ...

    for method, said in ((mine, "^mine$"), (others, "^'str' object has no attribute 'latents'$")):
        with pytest.raises(AttributeError, match=said):
            run(callback(method))
    with pytest.raises(TypeError, match="bse") as error:
        Raises()
    assert "no argument" not in str(error.value)


def test_a_subclass_may_be_called_and_takes_its_own_arguments() -> None:
    class Mine(Callback):
        def __init__(self, factor: float, **options: Any) -> None:
            self.factor, self.options = factor, options

        def on_step_end(self, step: Any) -> None: ...

        def __call__(self, x: float) -> float:
            return x * self.factor

    made = Mine(2.0, anything=1)
    assert (made(3.0), made.options) == (6.0, {"anything": 1})
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'factor'"):
        Mine()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.zeros((2, 3), np.float32), "a ndarray of shape (2, 3) and dtype float32"),
        ([np.zeros(3)], "[a ndarray of shape (3,) and dtype float64]"),
        ({"a": np.zeros(3)}, "{'a': a ndarray of shape (3,) and dtype float64}"),
        (np.float32(0.5), repr(np.float32(0.5))),
        (np.ndarray, "<class 'numpy.ndarray'>"),
        ("x" * 1000, None),
        (None, "None"),
    ],
)
def test_shown(value: Any, said: str | None) -> None:
    if said is None:
        assert len(shown(value)) < 200
    else:
        assert shown(value) == said


def test_tensors_within_objects_are_not_shown() -> None:
    class Holds:
        def __repr__(self) -> str:
            return "Holds(tensor([1., 2.]))"

    assert shown(Holds()) == "a Holds"


def test_error_at_the_runs_start_is_raised_as_it_is() -> None:
    """There is no step yet that could be in question."""
    missing = callback(nothing, on_run_start=lambda self, run: run.nothing_such)
    with pytest.raises(AttributeError, match="nothing_such"):
        run(missing)
