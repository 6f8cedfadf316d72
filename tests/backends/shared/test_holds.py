"""What a run holds on a framework's attention, only that run sees."""

from __future__ import annotations

import copy
import threading
from typing import Any

import ip_adapter_runs as runs
import numpy as np
import ways
from held import Run, held
from here import NAME, layers

from unicb.run.holds import hold

TITLE = "StableDiffusionPipeline (IP-Adapter)"


def pipeline() -> Any:
    return ways.pipeline(NAME, TITLE)


def picture() -> Any:
    return runs.latents(NAME, TITLE)


def alone(pipe: Any, *scales: float) -> dict[float, Any]:
    """What the pipeline makes with each scale, set by its own method. The last one stays."""
    made = {}
    for scale in scales:
        pipe.set_ip_adapter_scale(scale)
        made[scale] = picture()
    assert len({one.tobytes() for one in made.values()}) == len(scales)
    return made


def state(pipe: Any) -> Any:
    """What each processor is and holds, without being asked for its scale."""
    return [(type(one), dict(vars(one))) for one in runs.processors(pipe)]


def test_nested() -> None:
    """Every picture has the bits that it has alone, whoever else holds something."""
    pipe = pipeline()
    expected = alone(pipe, 0.3, 0.7, 0.9, 1.0)
    before = state(pipe)
    outer, inner = Run(), Run()
    with held(pipe, outer, 0.3):
        assert np.array_equal(picture(), expected[1.0])
        with held(pipe, inner, 0.7):
            for run, scale in ((outer, 0.3), (inner, 0.7), (outer, 0.3)):
                with run.calls():
                    assert np.array_equal(picture(), expected[scale])
            assert np.array_equal(picture(), expected[1.0])
            pipe.set_ip_adapter_scale(0.9)
            assert np.array_equal(picture(), expected[0.9])
            with inner.calls():
                assert np.array_equal(picture(), expected[0.7])
                pipe.set_ip_adapter_scale(0.3)
                assert np.array_equal(picture(), expected[0.3])
        with outer.calls():
            assert np.array_equal(picture(), expected[0.3])
        assert np.array_equal(picture(), expected[0.9])
    pipe.set_ip_adapter_scale(1.0)
    assert state(pipe) == before
    assert np.array_equal(picture(), expected[1.0])


def test_copies() -> None:
    """A copy of the model is plain, whoever is calling."""
    pipe = pipeline()
    pipe.set_ip_adapter_scale(1.0)
    before, run = state(pipe), Run()
    with held(pipe, run, 0.3), run.calls():
        copied = copy.deepcopy(pipe.unet)
        kinds = [type(one) for one in copied.attn_processors.values()]
        assert runs.scales(pipe) == [[0.3]] * len(before)
    assert kinds == [type(one) for one in pipe.unet.attn_processors.values()]
    found = [one for one in copied.attn_processors.values() if hasattr(one, "to_k_ip")]
    assert [vars(one)["scale"] for one in found] == [[1.0]] * len(before)
    assert state(pipe) == before


def test_classes() -> None:
    """The frameworks' own checks of classes find what they found."""
    pipe = pipeline()
    named = {key: type(one).__name__ for key, one in pipe.unet.attn_processors.items()}
    kinds = {key: type(one) for key, one in pipe.unet.attn_processors.items()}
    run = Run()
    with held(pipe, run, 0.3), run.calls():
        now = pipe.unet.attn_processors
        assert {key: type(one).__name__ for key, one in now.items()} == named
        assert {key: one.__class__ for key, one in now.items()} == kinds
        assert all(one.__class__ in (int, *kinds.values()) for one in now.values())
        pipe.set_ip_adapter_scale(0.5)
        assert runs.scales(pipe) == [[0.5]] * len(runs.processors(pipe))


class Through:
    """An attention processor that is no submodule, and attends to nothing."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Any,
        encoder_hidden_states: Any = None,
        attention_mask: Any = None,
    ) -> Any:
        return hidden_states


def test_processors() -> None:
    """A layer's processor, which frameworks keep among its submodules, may be held itself: by one
    that is a submodule too, or by one that is none."""
    pipe = pipeline()
    plain = alone(pipe, 0.3, 1.0)
    processor = runs.processors(pipe)[0]
    layer = next(part for part in layers(pipe.unet) if getattr(part, "processor", 0) is processor)
    kind, before = type(layer), dict(vars(layer))
    for mine in (copy.deepcopy(processor), Through()):
        run = Run()
        holding = hold(layer, "processor", mine, run)
        assert np.array_equal(picture(), plain[1.0])
        with run.calls():
            assert layer.processor is mine
            assert mine in pipe.unet.attn_processors.values()
            with_mine = picture()
            layer.processor = again = copy.deepcopy(mine)
            assert layer.processor is again is holding.value
        assert layer.processor is processor
        assert np.array_equal(with_mine, plain[1.0]) == (not isinstance(mine, Through))
        made = copy.deepcopy(layer)
        assert type(made) is kind
        assert type(made.processor) is type(processor)
        holding.release()
        assert (type(layer), dict(vars(layer))) == (kind, before)
    assert np.array_equal(picture(), plain[1.0])


def test_threads() -> None:
    """Two runs and a plain call at once on one UNet."""
    pipe = pipeline()
    pipe.set_ip_adapter_scale(1.0)
    layer = runs.processors(pipe)[0]
    scales: dict[float, set[float]] = {scale: set() for scale in (0.3, 0.7, 1.0)}
    start = threading.Barrier(3)

    def work(scale: float) -> None:
        run = Run()
        start.wait()
        for _ in range(200):
            if scale == 1.0:
                scales[scale].update(layer.scale)
                continue
            with held(pipe, run, scale), run.calls():
                scales[scale].update(layer.scale)

    threads = [threading.Thread(target=work, args=(scale,)) for scale in scales]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert scales == {scale: {scale} for scale in scales}
