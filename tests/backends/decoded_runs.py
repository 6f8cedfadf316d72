"""Previews by a pipeline's own VAE, held against what the pipeline makes of the same latents."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import ways
from here import NAME, backend, harness, tensor

from unicb import Callback, Step, Target, bind
from unicb.latents import size_of_latents
from unicb.latents.decoders import decoder_for
from zoo.decoders import add_decoder
from zoo.entry import Entry, Request
from zoo.families import entries
from zoo.framework import Framework

Array = npt.NDArray[Any]

#: Where a pipeline returns its pictures, by the names that its output has for them.
_NAMES = ("images", "frames", "image", "video", "rgb")


class Decodes(Callback):
    """Decodes at every step, the frame in the middle and all; keeps what came of the last."""

    tensors = ("latents",)

    def __init__(self, decoder: Any = "vae") -> None:
        self.decoder = decoder

    def on_bind(self, target: Target) -> None:
        pipeline, self.facts = target.pipeline, target.facts
        self.made = decoder_for(self.decoder, pipeline, self.facts, target.layout, target.backend)

    def on_step_end(self, step: Step) -> None:
        size = None
        if self.facts is not None and self.facts.size_from:
            names = step.run.loop_locals(self.facts.size_from)
            size = size_of_latents(step.pipeline, self.facts, names)
        self.middle, self.whole = (
            self._pixels(step, size, frames) for frames in ("middle", "animation")
        )

    def _pixels(self, step: Step, size: Any, frames: Any) -> Array:
        found = self.made.decode(step["latents"], size, frames)
        if found.tensor is None:
            assert found.images is not None
            return found.arrange(found.images)
        return found.arrange(step.ops.to_uint8(found.tensor))


def entry_of(family: str, title: str) -> Entry:
    [found] = [entry for entry in entries(family) if entry.title == title]
    return found


def run(fx: Framework, family: str, title: str, decoder: Any = "vae") -> tuple[Decodes, Array]:
    """Two prompts, from latents to pictures; returns also the pictures ``[rows, …, 3]``, 0..255."""
    entry = entry_of(family, title)
    fx.seed()
    pipeline = entry.build(fx)
    add_decoder(entry.name, fx, pipeline)
    request = Request(prompts=1 if "two prompts" in entry.impossible else 2, steps=2)
    looks = Decodes(decoder)

    def call(**callbacks: Any) -> Array:
        arguments = {**entry.arguments(fx, pipeline, request), "output_type": "np"}
        return _pictures(pipeline(**arguments, **callbacks))

    plain = call()
    with bind(pipeline, looks) as callbacks:
        finished = call(**callbacks)
    # Whatever a preview did, the finished picture is none the worse for it.
    np.testing.assert_allclose(finished, plain, atol=255 * fx.repeats_to)
    return looks, finished


def _pictures(output: Any) -> Array:
    named = (getattr(output, name) for name in _NAMES if hasattr(output, name))
    pictures = next(named, None)
    if pictures is None:  # without a dict, one pipeline returns its frames bare
        pictures = output[0] if isinstance(output, tuple) else output
    return np.asarray(np.stack(list(pictures)), dtype=np.float64)[..., :3] * 255


def assert_same(looks: Decodes, finished: Array, tolerance: float = 0.51) -> None:
    """All that was decoded, to the rounding to bytes."""
    whole = looks.whole if finished.ndim == 5 else looks.whole[:, 0]
    assert whole.dtype == np.uint8
    assert whole.shape == finished.shape
    assert np.abs(whole - finished).max() <= tolerance
    assert finished.std() > 5
    assert looks.middle.shape[1] == 1


def pipeline_with(vae: Any) -> Any:
    """A tiny Stable Diffusion with that VAE."""
    made = harness.build("text2img")
    made.register_modules(vae=vae)
    return made


def tiny() -> Any:
    return _model(
        "AutoencoderTiny",
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )


def autoencoder(**more: Any) -> Any:
    return _model(
        "AutoencoderKL",
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=4,
        **more,
    )


def wan() -> Any:
    return _model("AutoencoderKLWan", base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1)


def magvit() -> Any:
    return _model(
        "AutoencoderKLMagvit",
        latent_channels=16,
        block_out_channels=[8, 8, 8, 8],
        layers_per_block=1,
        norm_num_groups=4,
    )


def _model(class_name: str, **config: Any) -> Any:
    fx = ways.framework(NAME)
    fx.seed()
    return fx.model(class_name, **config)


def latents(*shape: int) -> Any:
    return tensor(np.random.default_rng(1).normal(size=shape).astype(np.float32))


def numbers(tensor: Any) -> Array:
    return backend.ops.to_numpy(tensor)
