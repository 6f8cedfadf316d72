"""IPAdapterScale and IPAdapterCutoff: which scales each step has, and that they are put back."""

from __future__ import annotations

import gc
import threading
import warnings
from typing import Any

import numpy as np
import pytest
from adapted import AdaptedPipeline, AdapterProcessor

from unicb import (
    Binding,
    Callback,
    CFGCutoff,
    Interrupt,
    Step,
    UnsupportedPipelineError,
    bind,
    sibling,
)
from unicb.callbacks._schedules import linear
from unicb.callbacks.ip_adapter import IPAdapterCutoff, IPAdapterScale


class Failing(Callback):
    def on_step_end(self, step: Step) -> None:
        if step.index == 5:
            raise RuntimeError("the sixth step")


def seen(pipe: AdaptedPipeline, *callbacks: Any, **call: Any) -> list[Any]:
    """All the scales of each step, of one number if that is what they are."""
    pipe.unet.seen.clear()
    pipe("x", **call, **bind(pipe, *callbacks))
    return [_alike(scales) for scales in pipe.unet.seen]


def _alike(scales: list[list[float]]) -> Any:
    each = {value for scale in scales for value in scale}
    return each.pop() if len(each) == 1 else scales


# --------------------------------------------------------------------------- which steps have what


def test_table() -> None:
    pipe = AdaptedPipeline()
    scales = seen(pipe, IPAdapterScale([(0.0, 1.0), (0.3, 0.6), (0.8, 0.1)]))
    assert scales == [1.0] * 3 + [0.6] * 5 + [0.1] * 2


def test_nothing_is_set_that_is_set_already() -> None:
    """A compiled denoiser is compiled anew for each scale that it is given."""
    pipe = AdaptedPipeline()
    given: list[float] = []
    own = pipe.set_ip_adapter_scale
    pipe.set_ip_adapter_scale = lambda scale: (given.append(scale), own(scale))[1]  # type: ignore[method-assign]
    asked: list[float] = []

    def schedule(progress: float) -> float:
        asked.append(progress)
        return 1.0 if progress < 0.5 else 0.25

    bound = bind(pipe, IPAdapterScale(schedule))
    asked.clear()
    pipe("x", **bound)
    assert given == [[1.0], [0.25]]
    assert asked == [i / 10 for i in range(10)]


def test_function_gets_each_steps_progress_at_its_beginning() -> None:
    pipe = AdaptedPipeline()
    assert seen(pipe, IPAdapterScale(linear(1.0, 0.0)), num_inference_steps=4) == [
        1,
        0.75,
        0.5,
        0.25,
    ]


def test_a_scale_alone_holds_from_the_second_step_on_and_says_so() -> None:
    pipe = AdaptedPipeline()
    with pytest.warns(UserWarning, match=r"starts with 0\.5.*call set_ip_adapter_scale\(0\.5\)"):
        assert seen(pipe, IPAdapterScale(0.5), num_inference_steps=4) == [1.0, 0.5, 0.5, 0.5]
    assert pipe.unet.scales() == [[1.0]] * 4
    pipe.set_ip_adapter_scale(0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert seen(pipe, IPAdapterScale(0.5), num_inference_steps=4) == [0.5] * 4


def test_several_adapters() -> None:
    pipe = AdaptedPipeline(adapters=2)
    found = seen(pipe, IPAdapterScale([(0.0, 1.0), (0.5, [0.2, 0.7])]), num_inference_steps=2)
    assert found == [1.0, [[0.2, 0.7]] * 4]
    assert seen(pipe, IPAdapterCutoff(0.0), num_inference_steps=3) == [1.0, 0.0, 0.0]
    assert pipe.unet.scales() == [[1.0, 1.0]] * 4


def test_blocks() -> None:
    pipe = AdaptedPipeline()
    style = {"up": {"block_0": [0.0, 1.0]}}
    found = seen(pipe, IPAdapterScale([(0.0, 1.0), (0.5, style)]), num_inference_steps=2)
    assert found == [1.0, [[0.0], [0.0], [0.0], [1.0]]]
    both = {"down": 0.3, "mid": 0.4, "up": {"block_0": 0.5}}
    found = seen(pipe, IPAdapterScale([(0.0, 1.0), (0.5, both)]), num_inference_steps=2)
    assert found[1] == [[0.3], [0.4], [0.5], [0.5]]


@pytest.mark.parametrize(
    ("cutoff", "on"),
    [
        (IPAdapterCutoff(0.4), 5),
        (IPAdapterCutoff(0.0), 1),
        (IPAdapterCutoff(cutoff_step_index=7), 8),
        (IPAdapterCutoff(1.0), 10),
        (IPAdapterCutoff(cutoff_step_index=9), 10),
    ],
)
def test_cutoff_counts_as_cfg_cutoff_does(cutoff: IPAdapterCutoff, on: int) -> None:
    assert seen(AdaptedPipeline(), cutoff) == [1.0] * on + [0.0] * (10 - on)


def test_cutoff_beyond_the_last_step_warns() -> None:
    with pytest.warns(UserWarning, match=r"cutoff_step_index=10\) never cuts: .* is 9"):
        assert seen(AdaptedPipeline(), IPAdapterCutoff(cutoff_step_index=10)) == [1.0] * 10


@pytest.mark.parametrize("index", [2, 3])
def test_both_halves_of_a_step_have_the_same(index: int) -> None:
    pipe = AdaptedPipeline(order=2)
    found = seen(pipe, IPAdapterCutoff(cutoff_step_index=index), num_inference_steps=6)
    assert found == [1.0] * 4 + [0.0] * 7
    found = seen(pipe, IPAdapterScale(lambda p: 1 - round(p * 11) / 100), num_inference_steps=6)
    assert found == [1.0, 1.0] + [1 - n / 100 for n in (2, 2, 4, 4, 6, 6, 8, 8, 10)]


def test_beside_cfg_cutoff() -> None:
    pipe = AdaptedPipeline()
    assert seen(pipe, CFGCutoff(0.4), IPAdapterCutoff(0.2)) == [1.0] * 3 + [0.0] * 7
    assert pipe.unet.rows == [2] * 5 + [1] * 5


def test_the_picture_is_that_of_a_plain_callback() -> None:
    def scale(pipeline: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if index == 3:
            pipeline.set_ip_adapter_scale(0.25)
        return tensors

    pipe = AdaptedPipeline()
    plain = pipe("x")
    ours = pipe("x", **bind(pipe, IPAdapterScale([(0.0, 1.0), (0.4, 0.25)])))
    theirs = pipe("x", callback_on_step_end=scale)
    assert np.array_equal(ours, theirs)
    assert not np.allclose(ours, plain)


# --------------------------------------------------------------------------- put back


def odd_scales(pipe: AdaptedPipeline) -> list[Any]:
    """What no call of set_ip_adapter_scale could express; returns the lists themselves."""
    held = [p for p in pipe.unet.attn_processors.values() if isinstance(p, AdapterProcessor)]
    for number, processor in enumerate(held):
        processor.scale[:] = [0.1 * number]
    return [processor.scale for processor in held]


@pytest.mark.parametrize(
    "callback", [IPAdapterScale([(0.0, 1.0), (0.2, 0.3)]), IPAdapterCutoff(0.2)]
)
@pytest.mark.parametrize("ends", ["finished", "interrupted", "failed", "in the denoiser"])
def test_put_back(callback: Callback, ends: str) -> None:
    pipe = AdaptedPipeline()
    lists = odd_scales(pipe)
    more: list[Callback] = []
    if ends == "interrupted":
        more.append(Interrupt(step=5))
    if ends == "failed":
        more.append(Failing())
    forward = pipe.unet.forward
    if ends == "in the denoiser":

        def failing(*args: Any, **kwargs: Any) -> Any:
            if len(pipe.unet.seen) == 5:
                raise RuntimeError("the sixth step")
            return forward(*args, **kwargs)

        pipe.unet.forward = failing  # type: ignore[method-assign]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if ends in ("finished", "interrupted"):
            seen(pipe, callback, *more)
        else:
            try:
                seen(pipe, callback, *more)
            except RuntimeError as error:
                assert str(error) == "the sixth step"  # noqa: PT017
            else:
                pytest.fail("the run did not fail")
    assert pipe.unet.seen[4] != pipe.unet.seen[0]
    assert pipe.unet.scales() == [[0.0], [0.1], [0.2], [0.1 * 3]]
    held = [p for p in pipe.unet.attn_processors.values() if isinstance(p, AdapterProcessor)]
    assert all(p.scale is kept for p, kept in zip(held, lists, strict=True))


def fail_unnoticed(
    pipe: AdaptedPipeline, callback: Callback, bound: Binding | None = None
) -> BaseException:
    """A run that fails in the denoiser, and whose error is kept with all the loop's locals."""
    pipe.unet.seen.clear()
    forward = pipe.unet.forward

    def failing(*args: Any, **kwargs: Any) -> Any:
        if len(pipe.unet.seen) == 5:
            raise RuntimeError
        return forward(*args, **kwargs)

    pipe.unet.forward = failing  # type: ignore[method-assign]
    try:
        pipe("x", **(bound or bind(pipe, callback)))
    except RuntimeError as error:
        return error
    finally:
        pipe.unet.forward = forward  # type: ignore[method-assign]
    pytest.fail("the run did not fail")


def test_a_kept_error_leaves_nothing() -> None:
    pipe = AdaptedPipeline()
    kept = fail_unnoticed(pipe, IPAdapterCutoff(0.0))
    assert pipe.unet.scales() == [[1.0]] * 4
    pipe.unet.seen.clear()
    pipe("x")
    assert [_alike(scales) for scales in pipe.unet.seen] == [1.0] * 10
    assert seen(pipe, IPAdapterCutoff(0.4)) == [1.0] * 5 + [0.0] * 5
    assert pipe.unet.scales() == [[1.0]] * 4
    del kept
    assert pipe.unet.scales() == [[1.0]] * 4


def test_a_run_that_fails_unnoticed_does_not_disturb_the_next() -> None:
    """Bound before the failure: nothing that is left of that is seen in the next run."""
    pipe = AdaptedPipeline()
    bound = bind(pipe, IPAdapterScale([(0.0, 0.0), (0.5, 0.7)]))
    kept = fail_unnoticed(pipe, IPAdapterCutoff(0.0))
    pipe.unet.seen.clear()
    noticed: list[bool] = []
    failing = bound

    class LettingGo(Callback):
        def on_step_end(self, step: Step) -> None:
            nonlocal kept
            if step.index == 2:
                kept = RuntimeError()
                gc.collect()
                noticed.append(failing._handle.run is None)  # in the middle of this run

    pipe.set_ip_adapter_scale(0.0)
    pipe("x", **bound)
    assert [_alike(scales) for scales in pipe.unet.seen] == [0.0] * 5 + [0.7] * 5
    assert pipe.unet.scales() == [[0.0]] * 4
    both = bind(pipe, LettingGo(), IPAdapterScale([(0.0, 0.0), (0.5, 0.7)]))
    failing = bind(pipe, IPAdapterCutoff(0.0))
    kept = fail_unnoticed(pipe, IPAdapterCutoff(0.0), failing)
    noticed.clear()
    pipe.unet.seen.clear()
    pipe("x", **both)
    assert noticed == [True]
    assert [_alike(scales) for scales in pipe.unet.seen] == [0.0] * 5 + [0.7] * 5
    assert pipe.unet.scales() == [[0.0]] * 4


def test_two_runs_on_one_denoiser() -> None:
    """One inside the other, on a sibling: each has its own, and a plain call the pipeline's."""
    pipe = AdaptedPipeline()
    other = sibling(pipe)
    inner: list[list[Any]] = []

    class Within(Callback):
        def on_step_end(self, step: Step) -> None:
            if step.index == 6:
                outer = list(pipe.unet.seen)
                for call in (other, bind(other, IPAdapterCutoff(0.3))):
                    pipe.unet.seen.clear()
                    call("x")
                    inner.append([_alike(scales) for scales in pipe.unet.seen])
                pipe.unet.seen[:] = outer

    pipe.unet.seen.clear()
    bind(pipe, IPAdapterCutoff(0.0), Within())("x")
    assert [_alike(scales) for scales in pipe.unet.seen] == [1.0] + [0.0] * 9
    assert inner == [[1.0] * 10, [1.0] * 4 + [0.0] * 6]
    assert pipe.unet.scales() == [[1.0]] * 4


def test_what_was_set_since_a_failure_stays() -> None:
    pipe = AdaptedPipeline()
    kept = fail_unnoticed(pipe, IPAdapterCutoff(0.0))
    pipe.set_ip_adapter_scale(0.4)
    assert seen(pipe, IPAdapterCutoff(0.4)) == [0.4] * 5 + [0.0] * 5
    del kept
    assert pipe.unet.scales() == [[0.4]] * 4


def test_one_callback_for_two_runs_at_once() -> None:
    """The end of the one does not put the other's scales back."""
    cutoff = IPAdapterCutoff(0.0)
    slow, fast = AdaptedPipeline(), AdaptedPipeline()
    half, over = threading.Event(), threading.Event()

    class Waiting(Callback):
        def on_step_end(self, step: Step) -> None:
            if step.index == 4:
                half.set()
                assert over.wait(30)

    bound = bind(slow, cutoff, Waiting())
    thread = threading.Thread(target=lambda: slow("x", **bound))
    thread.start()
    assert half.wait(30)
    assert seen(fast, cutoff) == [1.0] + [0.0] * 9
    over.set()
    thread.join(30)
    assert [_alike(scales) for scales in slow.unet.seen] == [1.0] + [0.0] * 9
    assert slow.unet.scales() == fast.unet.scales() == [[1.0]] * 4


# --------------------------------------------------------------------------- refused


@pytest.mark.parametrize("callback", [IPAdapterScale(0.5), IPAdapterCutoff(0.4)])
def test_without_an_adapter(callback: Callback, pipe: Any) -> None:
    name = type(callback).__name__
    with pytest.raises(UnsupportedPipelineError, match=f"{name}: ToyPipeline takes no IP-Adapter"):
        bind(pipe, callback)
    with pytest.raises(UnsupportedPipelineError, match=r"no IP-Adapter is loaded .*call its load"):
        bind(AdaptedPipeline(adapters=0), callback)


def test_unloaded_since() -> None:
    pipe = AdaptedPipeline()
    bound = bind(pipe, IPAdapterCutoff(0.4))
    pipe.unet = AdaptedPipeline(adapters=0).unet
    with pytest.raises(UnsupportedPipelineError, match="no IP-Adapter is loaded"):
        pipe("x", **bound)


@pytest.mark.parametrize(
    ("adapters", "schedule", "error", "says"),
    [
        (1, {"up": {"block_7": 1.0}}, ValueError, r"'up\.block_7'; .*down\.block_1, mid, up\.bl"),
        (1, {"upp": 1.0}, ValueError, "names the block 'upp'"),
        (1, {"down": {"block_0": 1.0}}, ValueError, r"'down\.block_0'"),
        (1, {"mid": {"block_0": 1.0}}, ValueError, r"'mid\.block_0'"),
        (1, {"up": {"block_0": [1.0, 0.0, 1.0]}}, ValueError, r"3 scales for up\.block_0.* 2 att"),
        (1, {"up": [1.0, 0.0, 1.0]}, ValueError, r"3 scales for up\.block_0"),
        (1, {"up": {"block_0": {"x": 1.0}}}, TypeError, "must be a number or a list"),
        (1, [0.2, 0.7], ValueError, "has 2 scales, and the pipeline has 1 IP-Adapters"),
        (2, [0.2], ValueError, "has 1 scales, and the pipeline has 2 IP-Adapters"),
        (2, {"up": 1.0}, ValueError, "has 1 scales, and the pipeline has 2"),
        (2, [0.5, {"up": {"block_7": 1.0}}], ValueError, "block_7"),
        (1, [(0.0, 1.0), (0.5, {"upp": 1.0})], ValueError, "names the block 'upp'"),
        (1, lambda p: {"upp": p}, ValueError, "names the block 'upp'"),
        (1, lambda p: None, TypeError, "at progress 0 must be a number, a dict by block or a list"),
    ],
)
def test_scales_that_do_not_fit(
    adapters: int, schedule: Any, error: type[Exception], says: str
) -> None:
    pipe = AdaptedPipeline(adapters)
    with pytest.raises(error, match=says):
        bind(pipe, IPAdapterScale(schedule))
    assert pipe.unet.scales() == [[1.0] * adapters] * 4


@pytest.mark.parametrize(
    ("schedule", "error", "says"),
    [
        ([], ValueError, "empty table"),
        ([(0.5, 1.0)], ValueError, "must start at progress"),
        ([(0.0, 1.0), (2.0, 0.5)], ValueError, r"0\.\.1"),
        ({0.0: 1.0, 0.5: 0.2}, TypeError, r"a table is a list of \(progress, scale\) tuples"),
        ({}, TypeError, "a dict has scales by the names of blocks"),
        ([(0.0, [])], ValueError, "is an empty list"),
        ((0.5, 0.2), TypeError, "must be a number, a dict by block or a list"),
        ("0.5", TypeError, "must be a number"),
        (None, TypeError, "must be a number"),
        ([0.5, True], TypeError, "must be a number, not True"),
        (float("nan"), ValueError, "finite"),
    ],
)
def test_what_is_no_schedule(schedule: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        IPAdapterScale(schedule)


def test_a_function_that_fails_in_the_run() -> None:
    pipe = AdaptedPipeline()
    schedule = IPAdapterScale(lambda p: "half" if p == 0.5 else 1.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"at progress 0\.5 must be"):
        seen(pipe, schedule)
    assert pipe.unet.scales() == [[1.0]] * 4


@pytest.mark.parametrize("arguments", [{}, {"cutoff_step_ratio": 0.4, "cutoff_step_index": 4}])
def test_cutoff_takes_exactly_one(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="IPAdapterCutoff takes exactly one"):
        IPAdapterCutoff(**arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"cutoff_step_ratio": 1.5}, ValueError, r"0\.\.1, not 1\.5"),
        ({"cutoff_step_ratio": "0.4"}, TypeError, "cutoff_step_ratio"),
        ({"cutoff_step_index": -1}, ValueError, "must not be negative"),
        ({"cutoff_step_index": 1.0}, TypeError, "must be an int"),
    ],
)
def test_cutoff_arguments(arguments: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        IPAdapterCutoff(**arguments)


def test_two_that_decide() -> None:
    with pytest.raises(ValueError, match="both decide on ip_adapter_scale"):
        bind(AdaptedPipeline(), IPAdapterScale(0.5), IPAdapterCutoff(0.4))
