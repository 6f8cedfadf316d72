"""Calls of denoisers that others have replaced: libraries that are known, and what is not."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from guided import BatchOfLocal, CallsOfLocal, Known, SwitchOfLocal

from unicb import (
    CFGCutoff,
    GuidanceInterval,
    GuidanceSchedule,
    Interrupt,
    NaNGuard,
    UnsupportedPipelineError,
    bind,
)
from unicb.guidance._caching import LIBRARIES
from unicb.guidance._replaced import replaced_by
from unicb_numpy.pipelines import ToyUNet

STEPS = 6


def run(pipe: Any, *callbacks: Any) -> Any:
    return bind(pipe, *callbacks)(["x"], steps=STEPS)


def code_in(package: str, function: Any) -> Any:
    """The function as if it stood in a module of that package."""
    moved = type(function)(
        function.__code__,
        {**function.__globals__, "__name__": f"{package}.extension"},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    moved.__qualname__ = function.__qualname__
    return moved


# ------------------------------------------------------------------------ libraries by name


def leave_cache_dit(pipe: Any) -> Callable[[], None]:
    """cache-dit 1.5.3, caching/cache_adapters/cache_adapter.py: mock_transformer."""
    unet, original = pipe.unet, pipe.unet.forward

    def new_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs)

    made = functools.partial(code_in("cache_dit", new_forward), unet)
    unet.forward = functools.update_wrapper(made, new_forward)
    pipe._context_manager = unet._context_manager = object()
    unet._context_names, unet._original_forward, unet._is_cached = ["blocks"], original, True

    def disable() -> None:  # maybe_release_hooks
        unet.forward = original
        del unet._original_forward, unet._is_cached, unet._context_manager, unet._context_names
        del pipe._context_manager

    return disable


def leave_first_block_cache(pipe: Any) -> Callable[[], None]:
    """ParaAttention, first_block_cache/diffusers_adapters: apply_cache_on_transformer."""
    unet, original = pipe.unet, pipe.unet.forward

    def new_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs)

    unet.forward = code_in("para_attn", new_forward).__get__(unet)
    unet._is_cached = True

    def disable() -> None:
        del unet.forward, unet._is_cached

    return disable


def leave_teacache(pipe: Any) -> Callable[[], None]:
    """TeaCache4FLUX/teacache_flux.py: everything is set on the model's class."""
    unet, own = pipe.unet, type(pipe.unet)

    class UNet(own):  # type: ignore[misc,valid-type]
        """So that other tests keep theirs."""

        enable_teacache = True
        cnt, num_steps, rel_l1_thresh, previous_residual = 0, STEPS, 0.4, None

    def teacache_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return own.forward(self, *args, **kwargs)

    UNet.forward = code_in("teacache_flux", teacache_forward)  # type: ignore[method-assign]
    unet.__class__ = UNet

    def disable() -> None:
        UNet.enable_teacache = False

    return disable


def leave_deepcache(pipe: Any) -> Callable[[], None]:
    """DeepCache 0.1.1, extension/deepcache.py: wrap_unet_forward and unwrap_modules."""
    unet, original = pipe.unet, pipe.unet.forward

    def wrapped_forward(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs)

    unet.forward = code_in("DeepCache", wrapped_forward)

    def disable() -> None:
        unet.forward = original  # which stays an attribute of the instance

    return disable


LEAVE = {
    "cache-dit": (leave_cache_dit, "cache_dit.disable_cache"),
    "first-block cache": (leave_first_block_cache, "apply_cache_on_pipe"),
    "TeaCache": (leave_teacache, "enable_teacache"),
    "DeepCache": (leave_deepcache, r"helper's disable\(\)"),
}
CUTTING = [CFGCutoff(0.5), GuidanceInterval(0.2, 0.8), GuidanceSchedule([(0.0, 5.0), (0.5, 1.0)])]
PIPES = [Known, BatchOfLocal, CallsOfLocal, SwitchOfLocal]


@pytest.mark.parametrize("kind", PIPES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("library", LEAVE)
def test_libraries_are_refused_by_name(library: str, kind: Any) -> None:
    leave, remedy = LEAVE[library]
    pipe, plain = kind(), run(kind())
    disable = leave(pipe)
    for callback in CUTTING:
        match = f"while .*{library}.* is enabled on its unet.*{remedy}"
        with pytest.raises(UnsupportedPipelineError, match=match):
            bind(pipe, callback)
    assert np.array_equal(run(pipe, NaNGuard()), plain)
    assert run(pipe, Interrupt(2)).shape == plain.shape
    disable()
    assert np.array_equal(run(pipe, CFGCutoff(0.5)), run(kind(), CFGCutoff(0.5)))
    assert np.array_equal(run(pipe), plain)


@pytest.mark.parametrize("kind", PIPES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("library", LEAVE)
def test_libraries_that_are_enabled_after_bind(library: str, kind: Any) -> None:
    """Between two runs of a binding, and while our own hooks are on the model."""
    leave, _ = LEAVE[library]
    pipe = kind()
    binding = bind(pipe, GuidanceInterval(0.2, 0.8))
    first = binding(["x"], steps=STEPS)
    disable = leave(pipe)
    with pytest.raises(UnsupportedPipelineError, match=library):
        binding(["x"], steps=STEPS)
    disable()
    assert np.array_equal(binding(["x"], steps=STEPS), first)

    def enable(pipe: Any, index: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if index == 1:
            leave(pipe)
        return tensors

    with pytest.raises(UnsupportedPipelineError, match=library):
        bind(pipe, enable, CFGCutoff(0.4), tensor_inputs=["latents"])(["x"], steps=STEPS)


def test_every_library_has_a_test_and_a_source() -> None:
    assert [any(name in one.name for one in LIBRARIES) for name in LEAVE] == [True] * len(LIBRARIES)
    assert all(one.source and bool(one.attributes) != bool(one.package) for one in LIBRARIES)


# --------------------------------------------------------------------------- what is not known


@contextmanager
def forward(pipe: Any, call: Callable[..., Any]) -> Iterator[None]:
    own = pipe.unet.forward
    pipe.unet.forward = functools.partial(code_in("somebodys", call), own)
    try:
        yield
    finally:
        del pipe.unet.forward


def keeps_rows(own: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
    """Every second call is answered from the one before."""
    kept.append(own(sample, *args, **kwargs) if len(kept) % 2 == 0 else kept[-1])
    return kept[-1]


def adds_rows(own: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
    """What is kept does not fit."""
    if kept and kept[0].shape != sample.shape:
        raise ValueError(f"shapes {kept[0].shape} and {sample.shape} do not go together")
    kept.append(own(sample, *args, **kwargs))
    return kept[-1]


def tells_halves_apart_by_counting(own: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
    """A cache for each half, that always hits."""
    half = len(kept) % 2
    kept.append(kept[half] if len(kept) > 1 else own(sample, *args, **kwargs))
    return kept[-1]


def honest(own: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
    kept.append(sample.shape[0])
    return own(sample, *args, **kwargs)


kept: list[Any] = []


@pytest.fixture(autouse=True)
def _kept() -> Iterator[None]:
    kept.clear()
    yield
    kept.clear()


@pytest.mark.parametrize("call", [keeps_rows, adds_rows], ids=lambda call: call.__name__)
def test_rows_that_are_kept(call: Any) -> None:
    pipe, plain = Known(), run(Known())
    with (
        forward(pipe, call),
        pytest.raises(UnsupportedPipelineError, match=r"unet.*rows") as caught,
    ):
        run(pipe, CFGCutoff(0.1 if call is adds_rows else 0.0))
    if call is adds_rows:
        assert "somebodys.extension.adds_rows" in str(caught.value)
        assert isinstance(caught.value.__cause__, ValueError)
    assert "forward" not in vars(pipe.unet)
    assert np.array_equal(run(pipe), plain)


@pytest.mark.parametrize("kind", [CallsOfLocal, SwitchOfLocal])
def test_halves_that_are_told_apart_by_counting(kind: Any) -> None:
    pipe, plain = kind(), run(kind())
    with (
        forward(pipe, tells_halves_apart_by_counting),
        pytest.raises(UnsupportedPipelineError, match=r"replaced by somebodys\..* twice"),
    ):
        run(pipe, CFGCutoff(0.3))
    assert np.array_equal(run(pipe), plain)


@pytest.mark.parametrize(
    ("kind", "calls"),
    [
        (Known, [2, 2, 1, 1, 1, 1]),
        (CallsOfLocal, [1] * 9),  # two in each of three steps, of which the last is verified
        (SwitchOfLocal, [1] * 9),
    ],
)
def test_what_holds_is_served(kind: Any, calls: list[int]) -> None:
    """It is verified in the first step after the cut, and costs nothing later."""
    pipe, expected = kind(), run(kind(), CFGCutoff(0.2))
    with forward(pipe, honest):
        assert np.array_equal(run(pipe, CFGCutoff(0.2)), expected)
    assert kept == calls


def test_errors_of_its_own_stay_after_the_first_step() -> None:
    def fails_late(own: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
        kept.append(sample)
        if len(kept) == 5:
            raise ValueError("on purpose")
        return own(sample, *args, **kwargs)

    pipe = Known()
    with forward(pipe, fails_late), pytest.raises(ValueError, match="on purpose"):
        run(pipe, CFGCutoff(0.2))


def test_who_has_replaced_a_call() -> None:
    unet: Any = ToyUNet()
    assert replaced_by(unet) is None
    unet.forward = unet.forward  # as libraries leave it that put back what they have found
    assert replaced_by(unet) is None
    for package in ("torch", "accelerate", "diffusers", "mindspore", "mindone", "unicb_torch"):
        unet.forward = code_in(package, lambda *args: None)
        assert replaced_by(unet) is None
        unet.forward = functools.wraps(honest)(code_in(package, lambda *args: None))
        assert replaced_by(unet) == f"{__name__}.honest"  # below it
    unet.forward = honest.__get__(unet)
    assert replaced_by(unet) == f"{__name__}.honest"
    unet.forward = Callee()
    assert replaced_by(unet) == f"{__name__}.Callee"


class Callee:
    def __call__(self, *args: Any) -> Any:
        return args


def test_a_class_whose_call_was_replaced() -> None:
    class UNet(ToyUNet):
        pass

    unet = UNet()
    assert replaced_by(unet) is None
    UNet.forward = code_in("somebodys", ToyUNet.forward)  # type: ignore[method-assign]
    assert replaced_by(unet) == "somebodys.extension.ToyUNet.forward"
