"""Previews of the model in examples/shapes, beside the pictures that its runs end with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from shapes_model import script

from unicb import Callback, Preview, PreviewFrame, Step, bind
from unicb.backend import backend_for
from unicb.latents import find_format
from unicb.pipelines import facts_for

Array = npt.NDArray[Any]

STEPS = 25
#: 30 % of the steps, counted as the frameworks count a cutoff.
EARLY = int(0.3 * STEPS)
LAST = STEPS - 1

generating = script("generate")


class Latents(Callback):
    """Keeps the latents of every step, on the host."""

    tensors = ("latents",)

    def __init__(self) -> None:
        self.seen: list[Array] = []

    def on_step_end(self, step: Step) -> None:
        self.seen.append(step.ops.to_numpy(step["latents"]).copy())


@dataclass(frozen=True)
class Seen:
    """A run, and what was shown of it.

    Attributes:
        pictures: what the pipeline returned, ``[rows, 64, 64, 3]``, 0..255.
        latents: of every step.
        noisy, denoised: previews by step, ``uint8`` ``[rows, height, width, 3]``.
    """

    pictures: Array
    latents: list[Array]
    noisy: Mapping[int, Array]
    denoised: Mapping[int, Array]

    def resemblance(self, shown: Mapping[int, Array], step: int) -> Array:
        """Pearson's r of each preview of the step with its finished picture."""
        wanted = averaged(self.pictures, shown[step].shape[1])
        return np.array([correlation(*pair) for pair in zip(shown[step], wanted, strict=True)])


def run(
    pipe: Any, images: int, *, previews: bool = True, decoder: Any = None, steps: int = STEPS
) -> Seen:
    """Random prompts from seeded latents, with the quickstart's guidance, seen both ways."""
    decoders = {"": decoder} if previews else {}
    return next(iter(run_once(pipe, images, decoders, steps).values()))


def run_once(
    pipe: Any, images: int, decoders: Mapping[str, Any], steps: int = STEPS
) -> dict[str, Seen]:
    """One run, seen by each of the decoders, by their names; without any, under "" by none."""
    scenes, start = generating.random_requests(images, seed=21)
    noisy: dict[str, list[PreviewFrame]] = {name: [] for name in decoders}
    denoised: dict[str, list[PreviewFrame]] = {name: [] for name in decoders}
    latents = Latents()
    shown = [
        preview
        for name, decoder in decoders.items()
        for preview in (
            Preview(noisy[name], every=EARLY, source="noisy", decoder=decoder),
            Preview(denoised[name], every=EARLY, source="denoised", decoder=decoder),
        )
    ]
    ops = backend_for(pipe).ops
    pictures = pipe(
        [scene.caption for scene in scenes],
        latents=ops.from_numpy(start, like=pipe.scheduler.alphas_cumprod),
        num_inference_steps=steps,
        guidance_scale=generating.BEST_GUIDANCE,
        output_type="np",
        return_dict=False,
        **bind(pipe, *shown, latents),
    )[0]
    levels = np.asarray(pictures) * 255.0
    return {
        name: Seen(
            levels, latents.seen, _by_step(noisy.get(name, [])), _by_step(denoised.get(name, []))
        )
        for name in decoders or ("",)
    }


def _by_step(frames: list[PreviewFrame]) -> dict[int, Array]:
    return {f.step: np.stack([np.asarray(image) for image in f.images]) for f in frames}


def averaged(pictures: Array, size: int) -> Array:
    """Square pictures averaged to ``[rows, size, size, 3]``."""
    rows, height, _, colours = pictures.shape
    edge = height // size
    return pictures.reshape(rows, size, edge, size, edge, colours).mean(axis=(2, 4))


def correlation(a: Array, b: Array) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def format_name(pipe: Any) -> str:
    return find_format(pipe, facts_for(pipe)).name


#: Of a mean over some pictures: the most that noisy previews resemble them at step EARLY, and the
#: least that denoised ones do.
EARLY_BOUNDS = {"linear": (0.5, 0.88), "vae": (0.6, 0.9), "tiny": (0.6, 0.9)}


def check_early(kind: str, seen: Seen, record: Callable[[str, object], None]) -> None:
    """The denoised preview shows the picture while the noisy one shows noise.

    Measured on PyTorch, 60 pictures, mean r and its standard deviation over these, at step 7 of 25:

        linear   noisy 0.359 (0.085)   denoised 0.928 (0.036)
        vae      noisy 0.418 (0.128)   denoised 0.949 (0.037)
        tiny     noisy 0.436 (0.127)   denoised 0.951 (0.037)

    So for a mean of four, the bounds are more than 2.5 of its standard errors away. Of each single
    picture, the denoised preview's r was higher by 0.245 at the least.
    """
    noisy, denoised = (seen.resemblance(x, EARLY) for x in (seen.noisy, seen.denoised))
    record(f"{kind}: mean r at step {EARLY} of {STEPS}, noisy", round(float(noisy.mean()), 3))
    record(f"{kind}: mean r at step {EARLY} of {STEPS}, denoised", round(float(denoised.mean()), 3))
    most, least = EARLY_BOUNDS[kind]
    assert noisy.mean() < most
    assert denoised.mean() > least
    assert (denoised > noisy + 0.15).all()


def check_last(kind: str, seen: Seen, record: Callable[[str, object], None]) -> None:
    """The last preview is of the finished latents, whatever was asked for, and shows every picture.

    Measured over 60 pictures, the least r: 0.982 for the linear map, 0.983 for the tiny decoder.
    The pipeline's own VAE makes the picture itself, but for the rounding to bytes.
    """
    np.testing.assert_array_equal(seen.noisy[LAST], seen.denoised[LAST])
    r = seen.resemblance(seen.denoised, LAST)
    record(f"{kind}: least r of the last preview", round(float(r.min()), 3))
    assert (r >= {"linear": 0.9, "vae": 0.999, "tiny": 0.95}[kind]).all()
    if kind == "vae":
        assert np.abs(seen.denoised[LAST] - seen.pictures).max() <= 0.51


def check_latents(seen: Seen, plain: Seen) -> None:
    """The same bits at every step as without previews, and the same picture."""
    assert len(seen.latents) == len(plain.latents) == STEPS
    for with_previews, without in zip(seen.latents, plain.latents, strict=True):
        np.testing.assert_array_equal(with_previews, without)
    np.testing.assert_array_equal(seen.pictures, plain.pictures)
