"""Preview(factors="fit"): fitted once, kept where it can be, and never trusted blindly."""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_vae import MIX, OwnedVAE, ToyVAE, VideoVAE, pipeline_with

from unicb import LatentFormat, Preview, PreviewFrame, UnsupportedPipelineError, bind
from unicb.latents import ColourMap, builtin_formats, find_format, fit_rgb_factors
from unicb.latents import fitted as module
from unicb.latents.fitted import fitted_format
from unicb.pipelines import facts_for
from unicb_numpy import backend
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "unicb"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (made := tmp_path / "checkpoint").mkdir()
    return made


def fitted(owner: Any) -> LatentFormat:
    return fitted_format(owner, backend)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*"))


@pytest.mark.parametrize("kind", [ToyVAE, VideoVAE])
def test_previews_have_the_colours_of_the_vae(kind: Any) -> None:
    pipe = pipeline_with(kind(scaling_factor=0.5))
    frames: list[PreviewFrame] = []
    callbacks = bind(pipe, Preview(frames, factors="fit", source="noisy"))
    calls = len(pipe.vae.calls)
    latents = callbacks("x", num_inference_steps=2, output_type="latent")
    assert len(pipe.vae.calls) == calls  # nothing is fitted while it runs
    colours = np.einsum("dhw,cd->hwc", latents[0] / 0.5, np.linalg.pinv(MIX))
    shown = np.clip((colours + 1) / 2 * 255, 0, 255)
    np.testing.assert_allclose(np.asarray(frames[-1].images[0]), shown, atol=1.5)


def test_beside_the_checkpoint_and_read_from_there(folder: Path, cache: Path) -> None:
    pipe = pipeline_with(ToyVAE())
    pipe.name_or_path = str(folder)
    form = fitted(pipe)
    assert [file.name[:12] for file in files(folder)] == ["preview-fit-"]
    assert not cache.exists()
    again = pipeline_with(ToyVAE())
    again.name_or_path = str(folder)
    assert fitted(again) == form
    assert again.vae.calls == []


def test_without_a_folder_in_the_users_cache(cache: Path) -> None:
    form = fitted(pipeline_with(ToyVAE()))
    assert len(files(cache)) == 1
    again = pipeline_with(ToyVAE())
    assert (
        fitted(again)
        == form
        == fit_rgb_factors(pipeline_with(ToyVAE()), samples=12, held_out=4).form
    )
    assert again.vae.calls == []


def test_a_folder_that_cannot_be_written_to(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permissions do not hold a superuser, so that the write itself is what fails."""
    pipe = pipeline_with(ToyVAE())
    pipe.name_or_path = str(folder)
    own = Path.write_text

    def write_text(self: Path, *args: Any, **kwargs: Any) -> int:
        if folder in self.parents:
            raise PermissionError(13, "Permission denied", str(self))
        return own(self, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", write_text)
    fitted(pipe)
    assert files(folder) == []
    assert len(files(cache)) == 1


def test_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(RuntimeWarning, match=r"cannot be kept \(.*file.*Set XDG_CACHE_HOME") as told:
        form = fitted(pipeline_with(ToyVAE()))
    assert len(told) == 1
    assert np.isfinite(form.factors).all()


def other_config() -> Any:
    return pipeline_with(ToyVAE(scaling_factor=0.5))


def other_weights() -> Any:
    pipe = pipeline_with(ToyVAE())
    pipe.vae.weight = StrictTensor(pipe.vae.weight.data + 0.5)
    return pipe


def other_class() -> Any:
    return pipeline_with(OwnedVAE())


@pytest.mark.parametrize("other", [other_config, other_weights, other_class])
def test_another_vae_is_fitted_anew(other: Any, cache: Path) -> None:
    fitted(pipeline_with(ToyVAE()))
    pipe = other()
    fitted(pipe)
    assert pipe.vae.calls
    assert len(files(cache)) == 2


@pytest.mark.parametrize(
    ("pattern", "instead"),
    [
        (r"^version = .*", "version = 0"),
        (r"^key = .*", 'key = "another"'),
        (r"^latent_channels = .*", "latent_channels = 3"),
        (r"^bias = .*", "bias = [nan, 0.0, 0.0]"),
        (r"^bias = .*", ""),
        (r"^mean = .*", ""),
        (r"^mean = .*", "mean = []"),
        (r"^\[format\]", ""),
        (r"(?s).*", "half of a fi"),
        (r"(?s).*", "\x00\x01"),
    ],
)
def test_what_is_kept_is_not_trusted_blindly(pattern: str, instead: str, cache: Path) -> None:
    form = fitted(pipeline_with(ToyVAE()))
    [file] = files(cache)
    whole = file.read_text("utf-8")
    file.write_text(re.sub(pattern, instead, whole, count=1, flags=re.MULTILINE), "utf-8")
    pipe = pipeline_with(ToyVAE())
    assert fitted(pipe) == form
    assert pipe.vae.calls
    assert file.read_text("utf-8") == whole  # written again


def test_another_version_of_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted(pipeline_with(ToyVAE()))
    monkeypatch.setattr(module, "_VERSION", module._VERSION + 1)
    pipe = pipeline_with(ToyVAE())
    fitted(pipe)
    assert pipe.vae.calls


def test_a_file_is_whole_or_not_there(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is being written, and after that was interrupted, nobody reads a half."""
    own = Path.write_text
    seen: list[list[str]] = []

    def write_text(self: Path, text: str, **kwargs: Any) -> int:
        own(self, text[:20], **kwargs)
        seen.append([file.name for file in files(cache)])
        return own(self, text, **kwargs)

    monkeypatch.setattr(Path, "write_text", write_text)
    fitted(pipeline_with(ToyVAE()))
    assert [name for names in seen for name in names if name.startswith("preview-fit")] == []
    assert len(files(cache)) == 1


def test_weights_that_cannot_be_read_are_fitted_and_not_kept(cache: Path) -> None:
    class Odd(StrictTensor):
        def reshape(self, shape: Any) -> Any:
            raise RuntimeError("quantised")

    pipe = pipeline_with(ToyVAE())
    pipe.vae.weight = Odd(pipe.vae.weight.data)
    assert fitted(pipe) == fit_rgb_factors(pipeline_with(ToyVAE()), samples=12, held_out=4).form
    assert files(cache.parent) == []


def test_colours_that_show_little(cache: Path) -> None:
    """As with weights that were never trained; it is said again where they are kept."""

    class Scrambled(ToyVAE):
        def decode(self, z: StrictTensor, return_dict: bool = True) -> tuple[StrictTensor]:
            noise = np.random.default_rng(0).uniform(-1, 1, (len(z.data), 3, 64, 64))
            return (StrictTensor(noise),)

    for _ in range(2):
        with pytest.warns(RuntimeWarning, match=r"show little of its pictures \(r with .*decoder="):
            fitted(pipeline_with(Scrambled()))


def test_more_channels_take_more_pictures() -> None:
    assert [module._samples(channels) for channels in (0, 4, 16, 48, 128)] == [12, 12, 12, 24, 64]


def test_a_vae_that_overflows_is_refused() -> None:
    class Overflows(ToyVAE):
        def distribution(self, mixed: Any) -> Any:
            return super().distribution(np.where(mixed > 0.5, np.inf, mixed))

    with pytest.raises(UnsupportedPipelineError, match="not finite of pictures, in float32: load"):
        bind(pipeline_with(Overflows()), Preview(print, factors="fit"))


def test_offloaded_layer_by_layer_is_refused_with_what_to_do() -> None:
    class Away(StrictTensor):
        device = "meta"

    pipe = pipeline_with(ToyVAE())
    pipe.vae.weight = Away(pipe.vae.weight.data)
    with pytest.raises(UnsupportedPipelineError, match=r"not in memory.*preview\.toml"):
        bind(pipe, Preview(print, factors="fit"))


class Hook:
    """As accelerate's, for a whole model."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pre_forward(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        self.calls.append("to the device")
        return args, kwargs

    def init_hook(self, model: Any) -> Any:
        self.calls.append("from the device")
        return model


def test_an_offloaded_vae_leaves_the_device_again() -> None:
    pipe = pipeline_with(ToyVAE())
    hook = pipe.vae._hf_hook = Hook()
    fitted(pipe)
    assert hook.calls[0] == "to the device"
    assert [call for call in hook.calls if call == "from the device"] == hook.calls[-1:]


def test_a_pipeline_without_a_vae(pipe: ToyPipeline) -> None:
    with pytest.raises(UnsupportedPipelineError, match="ToyPipeline is no VAE, and has no VAE"):
        bind(pipe, Preview(print, factors="fit"))


def test_random_numbers_are_left_as_they_were() -> None:
    np.random.seed(3)
    expected = np.random.normal()
    np.random.seed(3)
    bind(pipeline_with(ToyVAE()), Preview(print, factors="fit"))
    assert np.random.normal() == expected


@pytest.mark.parametrize("has_tqdm", [True, False])
def test_progress_is_shown(
    has_tqdm: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bars: list[Any] = []

    class Bar:
        n = 0

        def __init__(self, **options: Any) -> None:
            self.options = options
            bars.append(self)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None: ...

        def update(self, n: int) -> None:
            self.n += n

    fake = type("Module", (), {"tqdm": Bar}) if has_tqdm else None
    monkeypatch.setitem(sys.modules, "tqdm.auto", fake)  # None: there is no such module
    pipe = pipeline_with(ToyVAE())
    pipe._progress_bar_config = {"disable": False}
    fitted(pipe)
    if has_tqdm:
        [bar] = bars
        assert bar.options["desc"] == "fitting preview colours to the ToyVAE"
        assert (bar.n, bar.total, bar.options["disable"]) == (16, 16, False)
    else:
        assert capsys.readouterr().err == "fitting preview colours to the ToyVAE …\n"


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/unicb"),
        ("linux", {}, "/home/me/.cache/unicb"),
        ("darwin", {}, "/home/me/Library/Caches/unicb"),
        ("win32", {"LOCALAPPDATA": "/l"}, "/l/unicb/Cache"),
    ],
)
def test_where_the_cache_is(
    platform: str, variables: Any, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setattr(module.sys, "platform", platform)
    assert module._user_cache() == Path(expected)


def test_formats_by_name(pipe: ToyPipeline) -> None:
    for name, known in {"sd15": "sd", "SDXL": "sdxl", "sd": "sd"}.items():
        preview = Preview(print, factors=name)
        assert preview._factors == builtin_formats()[known]
    with pytest.raises(ValueError, match=r"'sd51' is no format and no file.*'fit'.*sdxl.*TOML"):
        Preview(print, factors="sd51")
    fit = fit_rgb_factors(pipeline_with(ToyVAE()), samples=4, held_out=2)
    assert Preview(print, factors=fit)._factors == fit.form


def test_colours_for_another_number_of_channels_are_refused_at_bind() -> None:
    pipe = pipeline_with(ToyVAE())
    with pytest.raises(UnsupportedPipelineError, match=r"'flux'.*4 latent channels instead.*'fit'"):
        bind(pipe, Preview(print, factors="flux"))


def test_colours_of_another_vae_by_name_are_warned_of() -> None:
    """Whoever hands over the format itself means it."""
    pipe = pipeline_with(ToyVAE(scaling_factor=7.0))
    with pytest.warns(RuntimeWarning, match=r"'sd'.*scaling factor 7.0 instead of 0.18215.*'fit'"):
        bind(pipe, Preview(print, factors="sd15"))("x", num_inference_steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bind(pipe, Preview([], factors=builtin_formats()["sd"]))("x", num_inference_steps=1)


def test_colours_by_name_are_held_against_any_vae() -> None:
    """Not every class calls it ``vae``."""
    pipe = pipeline_with(ToyVAE())
    pipe.movq, pipe.vae = pipe.vae, None
    with pytest.raises(UnsupportedPipelineError, match=r"'flux'.*4 latent channels"):
        bind(pipe, Preview([], factors="flux"))


@pytest.mark.parametrize("name", ["IFPipeline", "DDPMPipeline", "PRXPixelPipeline"])
def test_latents_that_are_the_picture_are_shown_as_they_are(name: str) -> None:
    form = find_format(pipeline_with(None), facts_for(type(name, (), {})()))
    owner = type(name, (ToyPipeline,), {"unicb_facts": facts_for(type(name, (), {})())})()
    assert fitted(owner) == form
    picture = StrictTensor(np.array([-1.0, 0.0, 1.0]).reshape(1, 3, 1, 1))
    assert ColourMap(form).rgb(picture, backend.ops).pixels.tolist() == [[[[0, 127, 255]]]]


def test_depth_beside_colours() -> None:
    """Of a VAE that encodes colours and depth, the colours are fitted."""

    class Six(ToyVAE):
        def __init__(self) -> None:
            super().__init__(in_channels=6, out_channels=6)

        def encode(self, x: StrictTensor, return_dict: bool = True) -> tuple[Any]:
            assert x.shape[1] == 6
            return super().encode(x, return_dict)

    owner = type("StableDiffusionLDM3DPipeline", (ToyPipeline,), {"vae": Six()})()
    form = fit_rgb_factors(owner, samples=8, held_out=2).form
    colour = np.array([0.3, -0.6, 0.9])
    shown = MIX @ colour @ np.array(form.factors) + np.array(form.bias)
    np.testing.assert_allclose(shown, colour, atol=1e-4)


def test_latents_that_are_not_the_vaes_are_refused() -> None:
    owner = type("HunyuanImageRefinerPipeline", (ToyPipeline,), {"vae": ToyVAE()})()
    with pytest.raises(UnsupportedPipelineError, match=r"no colours can be fitted.*two frames"):
        fit_rgb_factors(owner)


def test_an_unknown_format_says_what_there_is(pipe: ToyPipeline) -> None:
    pipe.vae = ToyVAE(scaling_factor=7.0)  # type: ignore[attr-defined]
    with pytest.raises(UnsupportedPipelineError) as error:
        bind(pipe, Preview(print))
    for named in ("scaling factor 7.0", "factors='fit'", "fit_rgb_factors", "decoder="):
        assert named in str(error.value)
