"""A runtime's pipelines beside torch's on the same checkpoint; and exports that lack something."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from runtime import FOLDER, NAME, NEAR, PROMPTS, STEPS, Array, apart, harness, rows_of, run

from exported_shapes import CHECKPOINT, load
from unicb import (
    CFGCutoff,
    GenerationCancelled,
    GuidanceInterval,
    GuidanceSchedule,
    Interrupt,
    Preview,
    PromptSchedule,
    Trajectory,
    UnsupportedPipelineError,
    bind,
    load_trajectory,
    sibling,
    stream,
)


@pytest.fixture(scope="module")
def reference() -> Any:
    pipe = StableDiffusionPipeline.from_pretrained(str(CHECKPOINT))
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def pipe() -> Any:
    return load(NAME, FOLDER)


WHAT: dict[str, tuple[Callable[[], list[Any]], list[int]]] = {
    "nothing": (lambda: [], [4, 4, 4, 4, 4, 4]),
    "cut": (lambda: [CFGCutoff(0.4)], [4, 4, 4, 2, 2, 2]),
    "interval": (lambda: [GuidanceInterval(0.3, 0.7)], [2, 4, 4, 4, 4, 2]),
    "schedule": (lambda: [GuidanceSchedule([(0.0, 7.0), (0.5, 1.0)])], [4, 4, 4, 2, 2, 2]),
    "interrupt": (lambda: [Interrupt(2), CFGCutoff(0.2)], [4, 4, 2]),
    "prompts": (lambda: [PromptSchedule([(0.5, "a green circle on a white background")])], [4] * 6),
}


@pytest.mark.parametrize("what", WHAT)
def test_it_draws_what_torch_draws(pipe: Any, reference: Any, what: str) -> None:
    make, rows = WHAT[what]
    assert not isinstance(pipe.unet, torch.nn.Module)
    expected = run(bind(reference, *make()))
    with rows_of(pipe) as seen:
        found = run(bind(pipe, *make()))
    assert seen == rows
    assert apart(found, expected) < NEAR
    if what != "nothing":
        assert apart(found, run(pipe)) > 100 * NEAR


def test_previews_and_recordings(pipe: Any, reference: Any, tmp_path: Path) -> None:
    """Beside a cut, for two prompts, they are torch's; colours are the checkpoint's own."""
    frames: list[list[Any]] = [[], []]
    recorded = []
    for number, one in enumerate((pipe, reference)):
        path = tmp_path / f"{number}.npz"
        run(bind(one, Preview(frames[number].append), Trajectory(path), CFGCutoff(0.4)))
        recorded.append(load_trajectory(path).latents)
    assert recorded[0].shape[:2] == (STEPS, 2)
    assert apart(recorded[0], recorded[1]) < NEAR
    assert len(frames[0]) == len(frames[1]) == STEPS
    for mine, other in zip(*frames, strict=True):
        pairs = zip(mine.images, other.images, strict=True)
        assert all(np.abs(np.subtract(a, b, dtype=int)).max() <= 1 for a, b in pairs)


def test_previews_of_an_export_that_has_moved(pipe: Any) -> None:
    """Its colours are refused, not guessed: the VAE is not the one of other Stable Diffusions."""
    with configured(pipe, _name_or_path=""), pytest.raises(UnsupportedPipelineError, match="VAE"):
        bind(pipe, Preview(print))
    moved: list[Any] = []
    with configured(pipe, _name_or_path=""):
        run(bind(pipe, Preview(moved.append, factors=CHECKPOINT / "preview.toml")))
    assert len(moved) == STEPS


@contextmanager
def configured(pipe: Any, **config: Any) -> Iterator[None]:
    """The pipeline with another configuration."""
    before = {name: pipe.config[name] for name in config}
    pipe.register_to_config(**config)
    try:
        yield
    finally:
        pipe.register_to_config(**before)


def test_the_runtimes_own_vae_is_no_decoder(pipe: Any) -> None:
    with pytest.raises(UnsupportedPipelineError, match="Leave decoder= out"):
        bind(pipe, Preview(print, decoder="vae"))


@pytest.mark.parametrize("now", [False, True])
def test_cancel(pipe: Any, now: bool) -> None:
    """In mid-run; it leaves nothing."""
    plain, before = run(pipe), harness.traces(pipe)

    def ask(pipe: Any, index: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if index == 2:
            binding.cancel(now=now)
        return tensors

    binding = bind(pipe, ask, CFGCutoff(0.2))
    with rows_of(pipe) as rows, pytest.raises(GenerationCancelled) as caught:
        run(binding)
    assert rows == [4, 4, 2]
    assert caught.value.step == 2
    assert binding.state == "cancelled"
    assert harness.traces(pipe) == before
    assert np.array_equal(run(pipe), plain)


def test_a_stream(pipe: Any) -> None:
    """It ends with what a plain call returns."""
    generator = torch.Generator().manual_seed(0)
    given = {"num_inference_steps": STEPS, "guidance_scale": 5.0, "output_type": "latent"}
    *frames, last = stream(pipe, PROMPTS, generator=generator, backlog=STEPS, **given)
    assert len(frames) == STEPS
    assert np.array_equal(last.output[0].numpy(), run(pipe))


@pytest.mark.parametrize("decoded", [False, True])
def test_siblings_in_threads(pipe: Any, decoded: bool) -> None:
    """At the same time, each has the bits that it has alone; with the decoder's work, too."""
    callbacks = [lambda: [], *(WHAT[what][0] for what in ("cut", "interval", "schedule"))]
    kind = "pt" if decoded else "latent"
    alone = [run(bind(pipe, *make()), output_type=kind) for make in callbacks]
    found: dict[int, Array] = {}

    def generate(number: int, other: Any) -> None:
        found[number] = run(bind(other, *callbacks[number]()), output_type=kind)

    siblings = [sibling(pipe) for _ in callbacks]
    threads = [threading.Thread(target=generate, args=pair) for pair in enumerate(siblings)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [np.array_equal(found.get(n, 0), right) for n, right in enumerate(alone)] == [True] * 4
