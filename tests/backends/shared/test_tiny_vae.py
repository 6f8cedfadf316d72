"""The tiny autoencoder of examples/shapes beside the full one."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from here import backend, on, tensor
from shapes_model import drawings, load


@cache
def tiny() -> Any:
    return load("AutoencoderTiny", "tiny_vae")


@cache
def full() -> Any:
    return load("AutoencoderKL", "vae")


@cache
def pictures() -> Any:
    """Drawings (N, 3, 64, 64) in [-1, 1] that no training saw."""
    drawn = np.stack([np.asarray(one) for one in drawings(on(torch=60, mindspore=24), 314)])
    return (drawn.transpose(0, 3, 1, 2) / 127.5 - 1).astype(np.float32)


@cache
def latents() -> Any:
    """Theirs, scaled: (N, 4, 16, 16)."""
    found = computed(full().encode, pictures(), of=on(torch=lambda x: x.mode(), mindspore=mode))
    return found * full().config.scaling_factor


def mode(moments: Any) -> Any:
    """MindSpore's encoder returns numbers, and has the distribution beside it."""
    return full().diag_gauss_dist.mode(moments)


def computed(network: Any, values: Any, of: Any = lambda x: x) -> Any:
    """What the network returns first, on the host."""
    with backend.fork_rng():
        return backend.ops.to_numpy(of(network(tensor(values.astype(np.float32)))[0]))


def decode(network: Any, values: Any) -> Any:
    return computed(network.decode, values).clip(-1, 1)


def correlations(pictures: Any, others: Any) -> Any:
    """Pearson's r of each picture with its counterpart."""
    pairs = zip(pictures, others, strict=True)
    return np.array([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs])


def psnr(pictures: Any, others: Any) -> Any:
    """dB of each picture; the greatest possible difference is 2."""
    return 10 * np.log10(4 / ((pictures - others) ** 2).mean((1, 2, 3)))


def test_it_takes_latents_as_the_sampler_has_them() -> None:
    config = tiny().config
    assert (config.scaling_factor, config.shift_factor) == (1.0, 0.0)
    assert config.latent_channels == full().config.latent_channels
    assert decode(tiny(), np.zeros((2, 4, 16, 16))).shape == (2, 3, 64, 64)


def test_it_decodes_as_the_full_one() -> None:
    """Measured on 500 drawings: r 0.995 in the mean and 0.975 at the least, 33.1 dB."""
    wanted = decode(full(), latents() / full().config.scaling_factor)
    found = decode(tiny(), latents())
    r = correlations(found, wanted)
    assert r.mean() > 0.99
    assert r.min() > 0.96
    assert psnr(found, wanted).mean() > 31


def test_drawings_survive_the_way_through_it() -> None:
    """Measured: r of the latents 0.999, of the pictures 0.987; 29.2 dB (the full one's 32.5)."""
    encoded = computed(tiny().encode, pictures())
    assert np.corrcoef(encoded.ravel(), latents().ravel())[0, 1] > 0.998
    found = decode(tiny(), encoded)
    assert correlations(found, pictures()).mean() > 0.98
    assert psnr(found, pictures()).mean() > 28


def test_the_class_as_a_whole_runs() -> None:
    """A call brings the latents to bytes on the way: none may leave the range that it allows."""
    found = computed(tiny(), pictures()).clip(-1, 1)
    assert psnr(found, pictures()).mean() > 28
