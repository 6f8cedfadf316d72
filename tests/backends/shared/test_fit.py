"""Fitting colours to the VAE of examples/shapes."""

from __future__ import annotations

from functools import cache, wraps
from pathlib import Path
from typing import Any

import here
import numpy as np
import pytest
from here import backend, diffusers, harness, layers, weights
from shapes_model import CHECKPOINT, VAEPipeline, drawings, load

from unicb import LatentFormat, Preview, PreviewFrame, bind
from unicb.latents import Fit, fit_rgb_factors
from unicb.latents.fit import _cells_of, _Coder, _correlations
from unicb.latents.fitted import fitted_format
from unicb.testing import Case


@cache
def pipeline() -> Any:
    return VAEPipeline(load("AutoencoderKL", "vae"), diffusers.DDIMScheduler())


@cache
def fitted() -> Fit:
    return fit_rgb_factors(pipeline(), drawings(64, 3))


def measure(form: LatentFormat) -> Any:
    """r with the full decode, of pictures that nobody was fitted on."""
    pictures = np.stack([np.asarray(scene).transpose(2, 0, 1) for scene in drawings(96, 3)[64:]])
    coder = _Coder(backend, pipeline())
    latents, decoded = coder.latents_and_decoded((pictures / 127.5 - 1).astype(np.float32), 0)
    shown = latents @ np.array(form.factors) + np.array(form.bias)
    return _correlations(shown, _cells_of(decoded, form.spatial_scale))


def test_fit_on_own_pictures() -> None:
    """As good as the figures that the checkpoint was published with, which have more pictures."""
    fit, shipped = fitted(), LatentFormat.load(CHECKPOINT / "preview.toml")
    assert fit.mean > 0.98
    assert fit.minimum > 0.9
    ours, theirs = measure(fit.form), measure(shipped)
    assert ours.mean() > theirs.mean() - 0.005
    assert ours.min() > 0.9
    assert fit.form.spatial_scale == shipped.spatial_scale
    assert fit.form.vae_scaling_factor == pipeline().vae.config.scaling_factor


def test_fit_on_drawings_of_our_own() -> None:
    """This VAE was trained on a few colours: it is no good at others, and its decodes differ."""
    fit = fit_rgb_factors(pipeline())
    assert fit.mean > 0.85
    assert measure(fit.form).mean() > 0.93


def test_vae_itself(tmp_path: Path) -> None:
    """The same figures as from its pipeline; in a file, they are found again."""
    fit = fit_rgb_factors(pipeline().vae, drawings(24, 3), held_out=8)
    assert fit == fit_rgb_factors(pipeline(), drawings(24, 3), held_out=8)
    fit.save(tmp_path / "preview.toml")
    assert LatentFormat.load(tmp_path / "preview.toml") == fit.form


def test_nothing_is_left_changed() -> None:
    vae = pipeline().vae
    attributes, learnt = dict(vars(vae)), weights(vae)
    modes = [layer.training for layer in layers(vae)]
    with backend.fork_rng():
        random = harness.draw()
    fit_rgb_factors(pipeline(), samples=4, held_out=2)
    np.testing.assert_equal(weights(vae), learnt)
    assert [layer.training for layer in layers(vae)] == modes
    assert vars(vae) == attributes
    assert np.array_equal(harness.draw(), random)


def encodings(monkeypatch: pytest.MonkeyPatch, vae: Any) -> list[Any]:
    calls, own = [], vae.encode

    @wraps(own)
    def encode(*args: Any, **kwargs: Any) -> Any:
        calls.append(args[0].shape)
        return own(*args, **kwargs)

    monkeypatch.setattr(vae, "encode", encode)
    return calls


def test_factors_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fitted at the first bind, read at the second, fitted anew for other weights; nothing of the
    VAE and nobody's random numbers are changed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    pipe = VAEPipeline(load("AutoencoderKL", "vae"), diffusers.DDIMScheduler())
    pipe.set_progress_bar_config(disable=True)
    learnt = weights(pipe.vae)
    with backend.fork_rng():
        random = harness.draw()
    with monkeypatch.context() as patched:
        calls = encodings(patched, pipe.vae)
        form = fitted_format(pipe, backend)
        assert len(calls) == 5  # one for the size of a cell, and sixteen pictures, four at once
        del calls[:]
        assert fitted_format(pipe, backend) == form
        assert calls == []
    np.testing.assert_equal(weights(pipe.vae), learnt)
    assert np.array_equal(harness.draw(), random)
    assert form == fit_rgb_factors(pipe, samples=12, held_out=4).form
    [kept] = tmp_path.glob("unicb/*")
    layer = pipe.vae.decoder.conv_out
    layer.bias.set_data(layer.bias + 0.1) if here.NAME == "mindspore" else layer.bias.data.add_(0.1)
    fitted_format(pipe, backend)
    assert len([*tmp_path.glob("unicb/*")]) == 2
    assert kept.exists()


def test_previews_of_a_pipeline_by_factors_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    pipe = harness.build("text2img")
    frames: list[PreviewFrame] = []
    case = Case("text2img", prompts=2, steps=3)
    plain = harness.run(pipe, case)
    # Its weights are random, and no colours can show much of what it decodes to.
    with pytest.warns(RuntimeWarning, match="show little of its pictures"):
        callbacks = bind(pipe, Preview(frames, factors="fit"))
    assert np.array_equal(harness.run(pipe, case, **callbacks), plain)
    assert [len(frame.images) for frame in frames] == [2, 2, 2]
