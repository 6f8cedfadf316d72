"""Progress takes the place of the pipeline's own bar: in its own calls, and in no others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fake_kernel import FakeKernel

from unicb import Callback, CFGCutoff, Preview, Progress, Step, bind, run_async, stream
from unicb.callbacks.timing import ProgressState
from unicb.sinks import Notebook
from unicb_numpy.pipelines import ToyPipeline


class Barred(ToyPipeline):
    """Has a bar as diffusers' pipelines have one.

    Attributes:
        bars: for each that it has made, whether that was shown.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bars: list[bool] = []

    @contextmanager
    def progress_bar(self, iterable: Any = None, total: Any = None) -> Iterator[None]:
        if not hasattr(self, "_progress_bar_config"):
            self._progress_bar_config: dict[str, Any] = {}
        assert isinstance(self._progress_bar_config, dict)
        self.bars.append(not self._progress_bar_config.get("disable", False))
        yield

    def set_progress_bar_config(self, **kwargs: Any) -> None:
        self._progress_bar_config = kwargs

    def __call__(self, *args: Any, callback_on_step_end: Any = None, **kwargs: Any) -> Any:
        with self.progress_bar(total=10):
            return super().__call__(*args, callback_on_step_end=callback_on_step_end, **kwargs)


@pytest.fixture
def barred() -> Barred:
    return Barred()


@pytest.fixture
def states() -> list[ProgressState]:
    return []


def test_call_form(barred: Barred, states: list[ProgressState]) -> None:
    bind(barred, Progress(states.append))("x", num_inference_steps=3)
    assert len(states) == 3
    assert barred.bars == [False]
    barred("x")
    assert barred.bars == [False, True]


def test_unpacked(barred: Barred, states: list[ProgressState]) -> None:
    callbacks = bind(barred, Progress(states.append))
    barred("x", **callbacks)
    barred("x")
    assert barred.bars == [False, True]


def test_stream(barred: Barred, states: list[ProgressState]) -> None:
    assert len([*stream(barred, "x", callbacks=[Progress(states.append)])]) > 0
    barred("x")
    assert barred.bars == [False, True]


def test_awaited(barred: Barred, states: list[ProgressState]) -> None:
    import asyncio

    asyncio.run(run_async(barred, "x", [Progress(states.append)]))
    barred("x")
    assert barred.bars == [False, True]


def test_other_callbacks_leave_it(barred: Barred) -> None:
    bind(barred, CFGCutoff(0.4), Preview([]))("x")
    assert barred.bars == [True]


def test_a_display_in_a_notebook_takes_its_place(
    barred: Barred, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeKernel(monkeypatch)
    bind(barred, Preview(Notebook()))("x")
    assert barred.bars == [False]


def test_a_callback_of_ones_own_may(barred: Barred) -> None:
    class Mine(Callback):
        hides_progress_bar = True

        def on_step_end(self, step: Step) -> None:
            pass

    bind(barred, Mine())("x")
    assert barred.bars == [False]


@pytest.mark.parametrize("config", [None, {}, {"desc": "drawing"}, {"disable": True}])
@pytest.mark.parametrize("unpacked", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_it_is_put_back(
    barred: Barred,
    states: list[ProgressState],
    config: dict[str, Any] | None,
    unpacked: bool,
    fails: bool,
) -> None:
    class Fail(Callback):
        def on_step_end(self, step: Step) -> None:
            if fails:
                raise ZeroDivisionError

    if config is not None:
        barred.set_progress_bar_config(**config)
    before, kind = {**vars(barred)}, type(barred)
    callbacks: Any = bind(barred, Progress(states.append), Fail())
    kept: list[BaseException] = []
    try:
        barred("x", **callbacks) if unpacked else callbacks("x")
    except ZeroDivisionError as error:
        kept.append(error)  # with the frames of the call
    assert len(kept) == fails
    barred("x")
    assert barred.bars == [False, not (config or {}).get("disable", False)]
    del kept[:], callbacks
    assert type(barred) is kind
    if config is not None:
        assert vars(barred)["_progress_bar_config"] == before["_progress_bar_config"] == config


def test_a_plain_call_in_a_callback_has_its_bar(
    barred: Barred, states: list[ProgressState]
) -> None:
    other = Barred()

    class Nested(Callback):
        def on_step_end(self, step: Step) -> None:
            if step.index == 1:
                with barred.progress_bar(total=1):
                    other("y", num_inference_steps=2)

    bind(barred, Nested(), Progress(states.append))("x", num_inference_steps=3)
    assert (barred.bars, other.bars) == ([False, True], [True])


def test_what_the_user_sets_meanwhile_is_kept(barred: Barred, states: list[ProgressState]) -> None:
    class Configure(Callback):
        def on_step_end(self, step: Step) -> None:
            barred.set_progress_bar_config(desc="mine")

    bind(barred, Configure(), Progress(states.append))("x", num_inference_steps=2)
    assert barred._progress_bar_config == {"desc": "mine"}


def test_a_configuration_of_another_kind_is_left_to_the_pipeline(
    barred: Barred, states: list[ProgressState]
) -> None:
    barred._progress_bar_config = "off"  # type: ignore[assignment]
    with pytest.raises(AssertionError):  # as a plain call has it
        bind(barred, Progress(states.append))("x")


def test_a_pipeline_without_a_bar(pipe: ToyPipeline, states: list[ProgressState]) -> None:
    bind(pipe, Progress(states.append))("x", num_inference_steps=4)
    assert len(states) == 4
    assert "_progress_bar_config" not in vars(pipe)
