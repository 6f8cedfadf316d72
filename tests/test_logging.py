"""What is logged under "unicb", and that nothing is where nobody listens."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from stop_helpers import BlockPipeline

from unicb import Callback, CFGCutoff, GenerationCancelled, GuidanceInterval, Preview, Step, bind
from unicb.sinks import PreviewFrame
from unicb_numpy.pipelines import ToyPipeline


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "unicb"]


def test_each_act_is_told(pipe: ToyPipeline, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "unicb")
    callbacks = bind(pipe, CFGCutoff(cutoff_step_index=8))
    callbacks("a", num_inference_steps=20)
    assert messages(caplog) == [
        f"bound: {callbacks!r}; its steps are noticed by its callback",
        "ToyPipeline: a run begins",
        "hook put on ToyUNet",
        "ToyPipeline: guidance cut after step 8 of 20: unet 2 → 1 rows",
        "ToyPipeline: run finished after 20 of 20 steps",
        "hook taken from ToyUNet",
    ]


def test_guidance_that_comes_back(pipe: ToyPipeline, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "unicb")
    bind(pipe, GuidanceInterval(0.5, 1.0))(["a", "b"])
    found = [text for text in messages(caplog) if "guidance" in text]
    assert found == [
        "ToyPipeline: guidance cut before the first step of 10: unet 4 → 2 rows",
        "ToyPipeline: guidance back after step 4 of 10",
    ]


@pytest.mark.parametrize("now", [False, True])
def test_a_stop(caplog: pytest.LogCaptureFixture, now: bool) -> None:
    caplog.set_level(logging.DEBUG, "unicb")

    class Stops(Callback):
        def on_step_end(self, step: Step) -> None:
            if step.index == 2:
                callbacks.cancel(now=now)

    callbacks = bind(BlockPipeline(), Stops())
    with pytest.raises(GenerationCancelled):
        callbacks("a")
    found = messages(caplog)
    asked = "cancel() in thread MainThread"
    assert f"asked to cancel the run, by {asked}" in found
    assert f"BlockPipeline: stopped after step 2 of 10 by {asked}" in found
    assert ("hooks put before all blocks of the denoisers, to cancel at the next" in found) == now
    assert ("hooks before all blocks taken away" in found) == now
    assert any(text.startswith("BlockPipeline: run cancelled after 3 of 10") for text in found)


def test_previews_that_are_dropped(pipe: ToyPipeline, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "unicb")

    def broken(frame: PreviewFrame) -> None:
        raise OSError("full")

    with pytest.warns(RuntimeWarning, match="full"):
        bind(pipe, Preview(broken))("a")
    assert any("dropped: the sink has raised" in text for text in messages(caplog))


def test_nothing_is_computed_where_nobody_listens(
    pipe: ToyPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def debug(*args: Any, **words: Any) -> None:
        raise AssertionError(f"logged: {args}")

    monkeypatch.setattr(logging.Logger, "debug", debug)
    logger = logging.getLogger("unicb")
    monkeypatch.setattr(logger, "level", logging.INFO)
    logger.manager._clear_cache()  # type: ignore[attr-defined]
    try:
        callbacks = bind(pipe, GuidanceInterval(0.2, 0.6), Preview([]))
        callbacks.interrupt()
        callbacks("a")
        callbacks.cancel(now=True)
        callbacks("a")
    finally:
        logger.manager._clear_cache()  # type: ignore[attr-defined]
