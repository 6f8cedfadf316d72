"""Denoisers that are no ``nn.Module``: all is as with the model itself, to the bit."""

from __future__ import annotations

import copy
import functools
import pickle
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from runtimes import (
    WRAPPERS,
    HasNoCall,
    LikeOpenVINO,
    LikeOptimumIntel,
    LikeOptimumOnnx,
    Plain,
)

from unicb import (
    CFGCutoff,
    GenerationCancelled,
    GuidanceInterval,
    GuidanceSchedule,
    Interrupt,
    Preview,
    Trajectory,
    UnsupportedPipelineError,
    bind,
    load_trajectory,
)
from unicb.pipelines import stoppable
from unicb.pipelines.source import CallSource
from unicb.testing import Case
from unicb_torch import backend
from unicb_torch.harness import harness

STEPS = 6
Array = npt.NDArray[Any]


def pipeline() -> Any:
    return harness.build("text2img")


def run(call: Callable[..., Any], **more: Any) -> Array:
    arguments = harness.arguments(Case("text2img", steps=STEPS))
    generator = torch.Generator().manual_seed(0)
    arguments |= {"guidance_scale": 5.0, "generator": generator, "output_type": "latent"}
    array: Array = call(**arguments, **more)[0].numpy()
    return array


def with_denoiser(make: Any) -> tuple[Any, Any]:
    """A pipeline, and the object in the place of its denoiser."""
    pipe = pipeline()
    pipe.unet = make(pipe.unet)
    return pipe, pipe.unet


def attributes(obj: Any) -> object:
    """What it is, and what it has; but for what it counts."""
    has = {name: value for name, value in getattr(obj, "__dict__", {}).items() if name != "rows"}
    return type(obj), [(name, id(value)) for name, value in has.items()]


@pytest.fixture(params=list(WRAPPERS))
def wrapped(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    return with_denoiser(WRAPPERS[request.param])


GUIDED: dict[str, tuple[Callable[[], Any], list[int]]] = {
    "cut": (lambda: CFGCutoff(0.4), [2, 2, 2, 1, 1, 1]),
    "interval": (lambda: GuidanceInterval(0.3, 0.7), [1, 2, 2, 2, 2, 1]),
    "schedule": (lambda: GuidanceSchedule([(0.0, 5.0), (0.5, 1.0)]), [2, 2, 2, 1, 1, 1]),
}


@pytest.mark.parametrize("what", GUIDED)
@pytest.mark.parametrize("form", ["called", "unpacked"])
def test_guidance(wrapped: tuple[Any, Any], what: str, form: str) -> None:
    make, rows = GUIDED[what]
    reference = pipeline()
    expected, plain = run(bind(reference, make())), run(reference)
    pipe, unet = wrapped
    before = attributes(unet)
    binding = bind(pipe, make())
    found = run(binding) if form == "called" else run(pipe, **binding)
    assert unet.rows == rows
    assert np.array_equal(found, expected)
    assert not np.array_equal(found, plain)
    assert attributes(unet) == before
    assert np.array_equal(run(pipe), plain)


def test_callbacks_that_look_on(wrapped: tuple[Any, Any], tmp_path: Path) -> None:
    frames: dict[str, list[Any]] = {"reference": [], "wrapped": []}
    results = {}
    for name, pipe in (("reference", pipeline()), ("wrapped", wrapped[0])):
        preview = Preview(frames[name].append, every=2, size=None)
        results[name] = run(bind(pipe, preview, Trajectory(tmp_path / f"{name}.npz")))
    assert np.array_equal(results["wrapped"], results["reference"])
    assert len(frames["wrapped"]) == len(frames["reference"]) > 0
    for one, other in zip(frames["wrapped"], frames["reference"], strict=True):
        assert np.array_equal(np.asarray(one.images), np.asarray(other.images))
    one, other = (load_trajectory(tmp_path / f"{name}.npz") for name in frames)
    assert np.array_equal(one.latents, other.latents)


@pytest.mark.parametrize("by_flag", [True, False])
def test_interrupt(
    wrapped: tuple[Any, Any], by_flag: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the loop's flag, and where a loop has none: it runs out without a call of the denoiser."""
    if not by_flag:
        monkeypatch.setattr(stoppable, "reads_flag", lambda kind: False)
    expected = run(bind(pipeline(), Interrupt(2)))
    pipe, unet = wrapped
    before = attributes(unet)
    binding = bind(pipe, Interrupt(2), CFGCutoff(0.2))
    run(binding)
    assert binding.state == "interrupted"
    assert unet.rows == [2, 2, 1]
    unet.rows.clear()
    assert np.array_equal(run(bind(pipe, Interrupt(2))), expected)
    assert len(unet.rows) == 3
    assert attributes(unet) == before


@pytest.mark.parametrize("now", [False, True])
def test_cancel(wrapped: tuple[Any, Any], now: bool) -> None:
    pipe, unet = wrapped
    before, plain = attributes(unet), run(pipe)
    unet.rows.clear()

    def ask(pipe: Any, index: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if index == 1:
            binding.cancel(now=now)
        return tensors

    binding = bind(pipe, ask, CFGCutoff(0.0))
    with pytest.raises(GenerationCancelled):
        run(binding)
    assert unet.rows == [2, 1]
    assert attributes(unet) == before
    assert np.array_equal(run(pipe), plain)


def test_cancel_in_the_call_of_the_denoiser(wrapped: tuple[Any, Any]) -> None:
    """Asked for before the third call by somebody whose hook comes first, it ends in that."""
    pipe, unet = wrapped
    calls = 0

    def ask(call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            binding.cancel(now=True)
            backend.hook(unet, ask)()  # and the model is called again, as by a loop
            return pipe.unet(*args, **kwargs)
        return call(*args, **kwargs)

    remove = backend.hook(unet, ask)
    binding = bind(pipe, lambda pipe, index, t, tensors: tensors)
    with pytest.raises(GenerationCancelled) as caught:
        run(binding)
    remove()
    assert (caught.value.step, len(unet.rows)) == (1, 2)


def test_while_it_is_hooked(wrapped: tuple[Any, Any]) -> None:
    """It passes for what it is; copies of it are plain; others of its class are not hooked."""
    _, unet = wrapped
    own = type(unet)
    seen: list[int] = []

    def note(call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        seen.append(1)
        return call(*args, **kwargs)

    removers = [backend.hook(unet, note), backend.hook(unet, note)]
    assert isinstance(unet, own)
    assert type(unet) in {own}
    assert type(unet).__name__ == own.__name__
    inputs = torch.zeros(1, 4, 8, 8), 1, torch.zeros(1, 77, unet.config.cross_attention_dim)
    with torch.no_grad():
        for copied in (copy.copy(unet), copy.deepcopy(unet), pickle.loads(pickle.dumps(unet))):
            assert type(copied) is own
            copied(*inputs)
        assert seen == []
        unet(*inputs)
        assert seen == [1, 1]  # once for each, though a call may go through forward
        removers[0]()
        unet(*inputs)
        assert seen == [1, 1, 1]
    removers[1]()
    assert type(unet) is own


def put_unhookable(pipe: Any, make: Callable[[Any], Any]) -> Any:
    model = pipe.unet

    def call(*args: Any, **kwargs: Any) -> Any:
        return model(*args, **kwargs)

    call.config, call.dtype = model.config, model.dtype  # type: ignore[attr-defined]
    made = make(call)
    made.config, made.dtype = model.config, model.dtype
    pipe.unet = made
    return made


def as_function(call: Any) -> Any:
    return call


CLOSED: dict[str, Callable[[Any], Any]] = {
    "a function": as_function,
    "a partial": functools.partial,
    "no call": HasNoCall,
}


@pytest.mark.parametrize("what", CLOSED)
def test_what_cannot_be_hooked_is_refused(what: str) -> None:
    """At bind, by whoever needs a hook; nobody else does."""
    pipe = pipeline()
    model = put_unhookable(pipe, CLOSED[what])
    for callback in (CFGCutoff(0.5), GuidanceInterval(0.2, 0.8), GuidanceSchedule(3.0)):
        with pytest.raises(UnsupportedPipelineError, match="cannot be hooked"):
            bind(pipe, callback)
    if callable(model):
        frames: list[Any] = []
        plain = run(pipe)
        binding = bind(pipe, Preview(frames.append), Interrupt(3))
        assert not np.array_equal(run(binding), plain)
        assert frames
        assert binding.state == "interrupted"


def test_what_cannot_be_hooked_in_a_loop_without_a_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop would need a hook; a preview and a cancel do not."""
    monkeypatch.setattr(stoppable, "reads_flag", lambda kind: False)
    pipe = pipeline()
    plain = run(pipe)
    put_unhookable(pipe, as_function)
    with pytest.raises(UnsupportedPipelineError, match=r"cannot interrupt .*cannot be hooked"):
        bind(pipe, Interrupt(3))
    frames: list[Any] = []
    binding = bind(pipe, Preview(frames.append))
    with pytest.raises(UnsupportedPipelineError, match="cannot be hooked"):
        binding.interrupt()
    assert np.array_equal(run(binding), plain)
    assert frames

    def ask(pipe: Any, index: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        binding.cancel(now=True)
        return tensors

    binding = bind(pipe, ask)
    with pytest.raises(GenerationCancelled):
        run(binding)


def test_error_while_a_binding_is_unpacked() -> None:
    """A denoiser that is exchanged for another after bind. Python itself would say that the
    binding is no mapping."""
    pipe = pipeline()
    binding = bind(pipe, GuidanceInterval(0.2, 0.8))
    plain = pipe.unet
    pipe.unet = HasNoCall(plain)
    with pytest.raises(UnsupportedPipelineError, match="cannot be called"):
        run(pipe, **binding)
    with pytest.raises(UnsupportedPipelineError, match="cannot be called"):
        run(binding)
    pipe.unet = plain
    assert run(pipe, **binding).shape


def test_other_errors_while_a_binding_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = pipeline()
    binding = bind(pipe, GuidanceInterval(0.2, 0.8))
    for error in (AttributeError("no such thing"), KeyError("unet")):

        def fail(*_: Any, error: Exception = error) -> Any:
            raise error

        monkeypatch.setattr(type(backend), "hook", fail)
        with pytest.raises(UnsupportedPipelineError, match=type(error).__name__) as caught:
            pipe(**binding)
        assert caught.value.__cause__ is error


# ------------------------------------------------------------ calls that hide their parameters


def as_class(kind: type) -> Any:
    """A pipeline of another class on the same parts, whose denoiser is a runtime's."""
    parts = pipeline().components
    made: Any = kind(**parts, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    made.unet = LikeOpenVINO(made.unet)
    return made


def test_a_call_that_hands_on_by_name() -> None:
    expected = run(bind(pipeline(), CFGCutoff(0.4)))
    pipe = as_class(LikeOptimumIntel)
    source = CallSource.of(LikeOptimumIntel)
    assert {"callback_on_step_end", "guidance_scale", "latents"} <= source.parameters
    assert source.reads_flag
    assert not source.hands_on
    assert np.array_equal(run(bind(pipe, CFGCutoff(0.4))), expected)
    assert pipe.unet.rows == [2, 2, 2, 1, 1, 1]
    frames: list[Any] = []
    interrupted = bind(pipe, GuidanceInterval(0.2, 1.0), Preview(frames.append), Interrupt(2))
    assert np.array_equal(
        run(interrupted), run(bind(pipeline(), GuidanceInterval(0.2, 1.0), Interrupt(2)))
    )
    assert frames


# ------------------------------------------------------------------------ one number of rows


@pytest.mark.parametrize("make", [LikeOptimumOnnx, LikeOpenVINO])
def test_a_static_batch_is_refused(make: Any) -> None:
    pipe, unet = with_denoiser(functools.partial(make, rows=2))
    before = attributes(unet)
    for callback in (CFGCutoff(0.5), GuidanceInterval(0.2, 0.8), GuidanceSchedule(lambda p: 2 * p)):
        with pytest.raises(UnsupportedPipelineError, match=r"unet .*batch of 2.*dynamic batch"):
            bind(pipe, callback)
    assert attributes(unet) == before
    frames: list[Any] = []
    plain = run(pipeline())
    assert np.array_equal(run(bind(pipe, Preview(frames.append))), plain)
    expected = run(bind(pipeline(), GuidanceSchedule([(0.0, 5.0), (0.5, 2.0)])))
    scaled = bind(pipe, GuidanceSchedule([(0.0, 5.0), (0.5, 2.0)]))
    assert np.array_equal(run(scaled), expected)


def test_a_static_batch_after_bind() -> None:
    pipe, unet = with_denoiser(LikeOpenVINO)
    binding = bind(pipe, CFGCutoff(0.5))
    pipe.unet = LikeOpenVINO(unet.hidden[0], rows=2)
    with pytest.raises(UnsupportedPipelineError, match="batch of 2"):
        run(binding)


def test_objects_that_only_look_like_a_runtimes() -> None:
    """A model may have such attributes, and mean something else."""
    pipe, unet = with_denoiser(Plain)
    unet.model, unet.session = {"inputs": 2}, object()
    unet.request = types.SimpleNamespace(inputs=[torch.zeros(2, 4)])
    assert run(bind(pipe, CFGCutoff(0.4))).shape
    assert unet.rows == [2, 2, 2, 1, 1, 1]


# ------------------------------------------------------------------- modules inside a wrapper


def test_caches_of_a_module_inside() -> None:
    """They forget at the cut, as those of a module do that is called itself."""

    class Around(Plain):
        def __init__(self, model: torch.nn.Module) -> None:
            super().__init__(model)
            self.inner = model

    _, unet = with_denoiser(Around)
    resets: list[bool] = []
    registry = types.SimpleNamespace(
        get_hook=lambda name: None,
        hooks={},
        reset_stateful_hooks=lambda: resets.append(True),
    )
    backend.reset_caches(unet, rehearse=True)
    unet.inner._diffusers_hook = registry
    backend.reset_caches(unet)
    assert resets == [True]
