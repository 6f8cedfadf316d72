"""Decoding latents for previews, by VAEs and functions whose right answer is known."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from unicb import PipelineFacts, UnsupportedPipelineError
from unicb.backend import get_backend
from unicb.latents import Layout
from unicb.latents._vae import known_decodings, known_vaes, pipeline_decoding, vae_decoding
from unicb.latents.decoders import Decoded, decoder_for
from unicb.pipelines import known_pipelines
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline

Array = npt.NDArray[Any]
BACKEND = get_backend("numpy")
ROWS, CHANNELS, FRAMES, HEIGHT, WIDTH = 2, 4, 5, 4, 6
SIZE = (FRAMES, HEIGHT, WIDTH)


class ToyVAE:
    """Shows its first three channels, each cell as 2x2 pixels, and keeps what it was given."""

    video = False

    def __init__(self, dtype: Any = np.float32, **config: Any) -> None:
        self.config = SimpleNamespace(**{"latent_channels": CHANNELS, **config})
        self.dtype = dtype
        self.seen: list[StrictTensor] = []

    def parameters(self) -> list[StrictTensor]:
        return [StrictTensor(np.zeros((4, 3, *(1,) * (2 + self.video)), self.dtype))]

    def decode(self, z: StrictTensor, return_dict: bool = True) -> tuple[StrictTensor]:
        assert not return_dict
        assert len(z.shape) == 4 + self.video
        self.seen.append(z)
        return (StrictTensor(z.data[:, :3].repeat(2, axis=-1).repeat(2, axis=-2)),)


class VideoVAE(ToyVAE):
    """Makes three pictures of each latent frame."""

    video = True

    def decode(self, z: StrictTensor, return_dict: bool = True) -> tuple[StrictTensor]:
        (pictures,) = super().decode(z, return_dict)
        return (StrictTensor(pictures.data.repeat(3, axis=2)),)


def cells(scale: float = 0.3) -> Array:
    """``[b, c, t, h, w]``, float32."""
    shape = (ROWS, CHANNELS, FRAMES, HEIGHT, WIDTH)
    return (scale * np.random.default_rng(0).normal(size=shape)).astype(np.float32)


def packed(x: Array, notation: str) -> Array:
    """``x`` in a layout, with other numbers where the layout has more."""
    junk = np.full_like(x, 9.0)
    b, c, t, h, w = x.shape
    # [b, t, h/2, w/2, c, 2, 2]
    tokens = (
        x.reshape(b, c, t, h // 2, 2, w // 2, 2)
        .transpose(0, 2, 3, 5, 1, 4, 6)
        .reshape(b, t, h * w // 4, c * 4)
    )
    more = np.full((b, 3, c * 4), 9.0, np.float32)
    return {
        "bchw": x[:, :, 0],
        "bcthw": x,
        "btchw": x.swapaxes(1, 2),
        "bthwc": x.transpose(0, 2, 3, 4, 1),
        "bthwc+": np.concatenate([x, junk], axis=1).transpose(0, 2, 3, 4, 1),
        "bncthw": np.stack([junk, x], axis=1),
        "b(cpq)hw": x[:, :, 0]
        .reshape(b, c, h // 2, 2, w // 2, 2)
        .transpose(0, 1, 3, 5, 2, 4)
        .reshape(b, c * 4, h // 2, w // 2),
        "b(hw)(cpq)": tokens[:, 0],
        "b(hw)(pqc)": tokens[:, 0].reshape(b, -1, c, 4).swapaxes(2, 3).reshape(b, -1, c * 4),
        "b(thw)(cpq)": tokens.reshape(b, -1, c * 4),
        "b(thw+)(cpq)": np.concatenate([tokens.reshape(b, -1, c * 4), more], axis=1),
        "b(+thw)(cpq)": np.concatenate([more, tokens.reshape(b, -1, c * 4)], axis=1),
    }[notation]


LAYOUTS = [
    *("bchw", "bcthw", "btchw", "bthwc", "bthwc+", "bncthw", "b(cpq)hw"),
    *("b(hw)(cpq)", "b(hw)(pqc)", "b(thw)(cpq)", "b(thw+)(cpq)", "b(+thw)(cpq)"),
]


def pipeline_with(vae: Any, kind: str = "ToyPipeline", **more: Any) -> Any:
    pipe: Any = type(kind, (ToyPipeline,), {})()
    pipe.vae = vae
    for name, value in more.items():
        setattr(pipe, name, value)
    return pipe


def decode(
    decoder: Any,
    pipe: Any,
    x: Array,
    notation: str = "bchw",
    frames: Any = "animation",
    facts: PipelineFacts | None = None,
) -> Decoded:
    layout = Layout(notation)
    latents = StrictTensor(packed(x, notation))
    before = latents.data.copy()
    made = decoder_for(decoder, pipe, facts, layout, BACKEND)
    grid: Sequence[int] | None = SIZE if "t" in notation else SIZE[1:]
    found = made.decode(latents, grid if "(" in notation else None, frames)
    assert np.array_equal(latents.data, before, equal_nan=True)
    return found


def pixels(found: Decoded) -> Array:
    if found.tensor is None:
        assert found.images is not None
        return found.arrange(found.images)
    return found.arrange(BACKEND.ops.to_uint8(found.tensor))


def as_bytes(pictures: Array) -> Array:
    """As the frameworks make bytes of -1..1, of ``[b, c, t, h, w]``."""
    scaled = np.round((np.clip(pictures, -1, 1) / 2 + 0.5) * 255).astype(np.uint8)
    return scaled[:, :3].transpose(0, 2, 3, 4, 1)


def large(x: Array) -> Array:
    return x.repeat(2, axis=-1).repeat(2, axis=-2)


def assert_shows(found: Decoded, pictures: Array) -> None:
    got = pixels(found)
    assert got.dtype == np.uint8
    assert got.shape == as_bytes(pictures).shape
    assert np.abs(got.astype(int) - as_bytes(pictures)).max() <= 1


@pytest.mark.parametrize("frames", ["middle", "strip", "animation"])
@pytest.mark.parametrize("notation", LAYOUTS)
@pytest.mark.parametrize("kind", [ToyVAE, VideoVAE])
def test_every_layout(kind: type[ToyVAE], notation: str, frames: str) -> None:
    vae = kind()
    x = cells() if "t" in notation else cells()[:, :, :1]
    chosen = x[:, :, 2:3] if frames == "middle" and "t" in notation else x
    found = decode("vae", pipeline_with(vae), cells(), notation, frames)
    [seen] = vae.seen
    given = chosen if vae.video else chosen.swapaxes(1, 2).reshape(-1, CHANNELS, HEIGHT, WIDTH)
    np.testing.assert_array_equal(seen.data, given)
    shown = chosen.repeat(3, axis=2) if vae.video and frames != "middle" else chosen
    assert_shows(found, large(shown))


MEAN, STD = [0.5, -1.0, 0.2, 0.1], [2.0, 0.5, 1.5, 3.0]


def by_channel(values: list[float]) -> Array:
    return np.array(values)[:, None, None, None]


@pytest.mark.parametrize(
    ("config", "encoded"),
    [
        ({}, lambda x: x),
        ({"scaling_factor": 0.5}, lambda x: x / 0.5),
        ({"scaling_factor": 0.5, "shift_factor": None}, lambda x: x / 0.5),
        ({"scaling_factor": 0.5, "shift_factor": 0.1}, lambda x: x / 0.5 + 0.1),
        (
            {"latents_mean": MEAN, "latents_std": STD},
            lambda x: x * by_channel(STD) + by_channel(MEAN),
        ),
        (
            {"latents_mean": MEAN, "latents_std": STD, "scaling_factor": 0.5},
            lambda x: x * by_channel(STD) / 0.5 + by_channel(MEAN),
        ),
        ({"latents_mean": None, "latents_std": None, "scaling_factor": 2.0}, lambda x: x / 2),
    ],
)
def test_numbers_of_the_vae(config: dict[str, Any], encoded: Any) -> None:
    vae = VideoVAE(**config)
    decode("vae", pipeline_with(vae), cells(), "bcthw")
    np.testing.assert_allclose(vae.seen[0].data, encoded(cells()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("frames", ["middle", "animation"])
def test_means_of_each_frame(frames: str) -> None:
    """Cosmos 1 has them, for more frames than most videos have."""
    mean, std = np.random.default_rng(1).uniform(0.5, 2, (2, CHANNELS, FRAMES + 3))
    vae = VideoVAE(latents_mean=list(mean.flat), latents_std=list(std.flat))
    decode("vae", pipeline_with(vae), cells(), "bcthw", frames)
    chosen = slice(2, 3) if frames == "middle" else slice(0, FRAMES)
    wanted = cells()[:, :, chosen] * std[:, chosen, None, None] + mean[:, chosen, None, None]
    np.testing.assert_allclose(vae.seen[0].data, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("notation", ["bchw", "b(cpq)hw", "b(hw)(cpq)", "b(hw)(pqc)"])
def test_means_of_each_of_four_cells(notation: str) -> None:
    """Flux 2's; Ideogram 4 counts the channels of a token otherwise, and these with them."""
    mean, var = np.random.default_rng(1).uniform(0.5, 2, (2, CHANNELS * 4))
    vae: Any = ToyVAE(batch_norm_eps=1e-3)
    vae.bn = SimpleNamespace(running_mean=StrictTensor(mean), running_var=StrictTensor(var))
    facts = PipelineFacts(source="this test", layout=notation)
    pipe = pipeline_with(vae)
    type(pipe).unicb_facts = facts
    decode("vae", pipe, cells(), notation, facts=facts)
    order = (2, 2, CHANNELS) if notation.endswith("(pqc)") else (CHANNELS, 2, 2)
    std, mean = (np.sqrt(var + 1e-3).reshape(order), mean.reshape(order))
    if notation.endswith("(pqc)"):
        std, mean = std.transpose(2, 0, 1), mean.transpose(2, 0, 1)
    tiled = [np.tile(a, (1, HEIGHT // 2, WIDTH // 2)) for a in (std, mean)]
    wanted = cells()[:, :, 0] * tiled[0] + tiled[1]
    np.testing.assert_allclose(vae.seen[0].data, wanted, rtol=1e-5, atol=1e-6)


def scheduler(sigma_data: float) -> Any:
    return SimpleNamespace(config=SimpleNamespace(sigma_data=sigma_data))


def test_classes_that_scale_otherwise() -> None:
    vae = ToyVAE(scaling_factor=0.5)
    decode("vae", pipeline_with(vae, "SanaSprintPipeline", scheduler=scheduler(0.25)), cells())
    decode("vae", pipeline_with(vae, "GlmImagePipeline"), cells())
    np.testing.assert_allclose(vae.seen[0].data, cells()[:, :, 0] / 0.5 / 0.25, rtol=1e-5)
    np.testing.assert_array_equal(vae.seen[1].data, cells()[:, :, 0])


def test_first_frame_that_is_not_generated() -> None:
    vae = VideoVAE()
    pipe = pipeline_with(vae, "WanAnimatePipeline")
    decode("vae", pipe, cells(), "bcthw")
    decode("vae", pipe, cells(), "bcthw", "middle")
    np.testing.assert_array_equal(vae.seen[0].data, cells()[:, :, 1:])
    np.testing.assert_array_equal(vae.seen[1].data, cells()[:, :, 3:4])


def test_frames_that_are_pictures_of_their_own() -> None:
    """A VAE of video gets videos of one frame; of its RGBA the colours are shown."""

    class OneFrame(VideoVAE):
        def decode(self, z: StrictTensor, return_dict: bool = True) -> tuple[StrictTensor]:
            assert z.shape[2] == 1
            self.seen.append(z)
            return (StrictTensor(large(z.data)),)

    vae = OneFrame(out_channels=4)
    pipe = pipeline_with(vae, "QwenImageLayeredPipeline")
    found = decode("vae", pipe, cells(), "b(thw)(cpq)")
    assert_shows(found, large(cells()[:, :, 1:]))


def test_what_else_a_vae_is_told() -> None:
    arguments: list[dict[str, Any]] = []

    class Asks(ToyVAE):
        def decode(
            self,
            z: StrictTensor,
            temb: Any = None,
            num_frames: int = 0,
            force_not_quantize: bool = False,
            return_dict: bool = True,
        ) -> tuple[StrictTensor]:
            arguments.append({"temb": temb, "frames": num_frames, "as it is": force_not_quantize})
            return super().decode(z, return_dict)

    decode("vae", pipeline_with(Asks()), cells(), "btchw")
    decode("vae", pipeline_with(Asks(timestep_conditioning=True)), cells(), "bchw")
    assert arguments[0] == {"temb": None, "frames": FRAMES, "as it is": True}
    assert np.array_equal(arguments[1]["temb"].data, np.zeros(ROWS))


def test_vae_that_decodes_to_black_and_white_of_its_own() -> None:
    class PaellaVQModel(ToyVAE):
        pass

    vae = PaellaVQModel(scale_factor=0.5, scaling_factor=7.0)
    pipe = pipeline_with(None, vqgan=vae)
    x = np.abs(cells())
    found = decode("vae", pipe, x)
    np.testing.assert_allclose(vae.seen[0].data, x[:, :, 0] * 0.5)
    assert_shows(found, large(x[:, :, :1]) * 0.5 * 2 - 1)


def test_movq_is_not_scaled() -> None:
    class VQModel(ToyVAE):
        pass

    vae = VQModel(scaling_factor=0.18215)
    decode("vae", pipeline_with(None, movq=vae), cells())
    np.testing.assert_array_equal(vae.seen[0].data, cells()[:, :, 0])


def test_videos_that_cannot_be_decoded_in_parts() -> None:
    class AutoencoderKLAllegro(VideoVAE):
        def decode(self, z: StrictTensor, return_dict: bool = True) -> tuple[StrictTensor]:
            (pictures,) = super().decode(z, return_dict)
            return (pictures.swapaxes(1, 2),)

    vae = AutoencoderKLAllegro()
    found = decode("vae", pipeline_with(vae), cells(), "bcthw", "middle")
    assert vae.seen[0].shape == cells().shape
    assert_shows(found, large(cells()[:, :, 2:3]))


def test_not_finite_latents_are_black_there() -> None:
    x = cells()
    x[0, :, 0, 1, 2] = np.nan
    shown = pixels(decode("vae", pipeline_with(ToyVAE(scaling_factor=0.5)), x))
    assert not shown[0, 0, 2:4, 4:6].any()
    assert shown.any(axis=-1).sum() == ROWS * HEIGHT * WIDTH * 4 - 4


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_latents_get_the_dtype_of_the_vae(dtype: Any) -> None:
    vae = ToyVAE(dtype=dtype)
    decode("vae", pipeline_with(vae), cells())
    assert vae.seen[0].dtype == dtype
    np.testing.assert_allclose(vae.seen[0].data, cells()[:, :, 0], rtol=1e-3)


class KeepingVAE(VideoVAE):
    """Keeps features on itself and in a layer, and stops at NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = SimpleNamespace(prev_features="of an earlier video")

    def modules(self) -> list[Any]:
        return [self, self.layer]

    def decode(self, z: StrictTensor, return_dict: bool = True) -> tuple[StrictTensor]:
        assert self.layer.prev_features is None
        self.layer.prev_features = "of this video"
        self._feat_map = [z]
        if np.isnan(z.data).any():
            raise FloatingPointError("not a number")
        return super().decode(z, return_dict)


class AutoencoderKLMagvit(KeepingVAE):
    pass


@pytest.mark.parametrize("fails", [False, True])
def test_what_vaes_keep_is_as_before(fails: bool) -> None:
    vae = AutoencoderKLMagvit()
    before = dict(vars(vae))
    x = cells() * np.nan if fails else cells()
    if fails:
        with pytest.raises(FloatingPointError):
            decode("vae", pipeline_with(vae), x, "bcthw")
    else:
        decode("vae", pipeline_with(vae), x, "bcthw")
    assert vars(vae) == before
    assert vae.layer.prev_features == "of an earlier video"


def test_random_numbers_are_as_before() -> None:
    class Draws(ToyVAE):
        def decode(self, z: StrictTensor, return_dict: bool = True) -> tuple[StrictTensor]:
            np.random.normal(size=3)
            return super().decode(z, return_dict)

    np.random.seed(5)
    wanted = np.random.normal()
    for decoder in ("vae", lambda x: (np.random.normal(), StrictTensor(x.data[:, :3]))[1]):
        np.random.seed(5)
        decode(decoder, pipeline_with(Draws()), cells())
        assert np.random.normal() == wanted


# Models


class AutoencoderTiny(ToyVAE):
    def __init__(self, **config: Any) -> None:
        super().__init__(latent_magnitude=3, scaling_factor=1.0, shift_factor=0.0, **config)


def test_tiny_model_gets_what_the_scheduler_has() -> None:
    tiny = AutoencoderTiny()
    vae = ToyVAE(scaling_factor=0.5, shift_factor=0.1)
    found = decode(tiny, pipeline_with(vae), cells(), "b(hw)(cpq)")
    np.testing.assert_array_equal(tiny.seen[0].data, cells()[:, :, 0])
    assert not vae.seen
    assert_shows(found, large(cells()[:, :, :1]))


def test_another_vae_of_the_same_latents() -> None:
    other = ToyVAE(scaling_factor=0.50001)
    decode(other, pipeline_with(ToyVAE(scaling_factor=0.5)), cells())
    assert len(other.seen) == 1


def test_vae_of_a_pipeline_without_one() -> None:
    vae = ToyVAE(scaling_factor=0.5)
    decode(vae, pipeline_with(None), cells())
    np.testing.assert_allclose(vae.seen[0].data, cells()[:, :, 0] / 0.5)


# Functions


def with_frames(x: Array) -> Array:
    return x if x.ndim == 5 else x[:, :, None]


FUNCTIONS: dict[str, Any] = {
    "tensor": lambda x: StrictTensor(large(x.data[:, :3])),
    "uint8": lambda x: (
        np.squeeze(as_bytes(with_frames(large(x.data))), axis=1)
        if x.data.ndim == 4
        else as_bytes(large(x.data))
    ),
    "images": lambda x: [
        Image.fromarray(picture) for row in as_bytes(with_frames(large(x.data))) for picture in row
    ],
}


@pytest.mark.parametrize("notation", ["bchw", "b(hw)(cpq)", "bcthw", "btchw", "b(thw)(cpq)"])
@pytest.mark.parametrize("returns", FUNCTIONS)
@pytest.mark.parametrize("frames", ["middle", "animation"])
def test_functions(returns: str, notation: str, frames: str) -> None:
    seen: list[tuple[int, ...]] = []

    def function(x: StrictTensor) -> Any:
        seen.append(x.shape)
        return FUNCTIONS[returns](x)

    found = decode(function, pipeline_with(ToyVAE(scaling_factor=0.5)), cells(), notation, frames)
    x = cells() if "t" in notation else cells()[:, :, :1]
    x = x[:, :, 2:3] if "t" in notation and frames == "middle" else x
    assert seen == [x.shape if "t" in notation else x[:, :, 0].shape]
    assert_shows(found, large(x))


def test_function_for_latents_whose_channels_nobody_tells() -> None:
    function = FUNCTIONS["tensor"]
    assert_shows(decode(function, pipeline_with(None), cells()), large(cells()[:, :, :1]))
    with pytest.raises(UnsupportedPipelineError, match="how many channels its packed latents have"):
        decode(function, pipeline_with(None), cells(), "b(hw)(cpq)")
    facts = PipelineFacts(source="this test", latents="sd", layout="b(hw)(cpq)")
    found = decode(function, pipeline_with(None), cells(), "b(hw)(cpq)", facts=facts)
    assert_shows(found, large(cells()[:, :, :1]))


@pytest.mark.parametrize(
    ("returned", "error", "said"),
    [
        (None, TypeError, "a tensor, a list of PIL images or a uint8 array, not NoneType"),
        (np.zeros((2, 8, 8, 3)), TypeError, "not ndarray of float64"),
        ((StrictTensor(np.zeros((2, 3, 8, 8))),), TypeError, "not tuple"),
        (StrictTensor(np.zeros((1, 3, 8, 8))), ValueError, r"\(1, 3, 1, 8, 8\), instead of \[2, 3"),
        (StrictTensor(np.zeros((2, 1, 8, 8))), ValueError, r"instead of \[2, 3, frames"),
        (np.zeros((3, 8, 8, 3), np.uint8), ValueError, "for 2 rows of latents"),
        (np.zeros((2, 3, 8, 8), np.uint8), ValueError, r"instead of \[2, height, width, 3\]"),
        ([Image.new("RGB", (8, 8))] * 3, ValueError, "3 images for 2 rows"),
        ([], ValueError, "0 images for 2 rows"),
    ],
)
def test_what_functions_must_return(returned: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        decode(lambda x: returned, pipeline_with(ToyVAE()), cells())


# Refusals


class NoPictures:
    config = SimpleNamespace()


class Hook:
    def __init__(self, **more: Any) -> None:
        vars(self).update(more)


def hooked(vae: ToyVAE, hook: Any) -> ToyVAE:
    vars(vae)["_hf_hook"] = hook
    return vae


class Bare(ToyVAE):
    def parameters(self) -> list[StrictTensor]:
        return []


def refused(decoder: Any, vae: Any, said: str, kind: str = "ToyPipeline", **more: Any) -> None:
    pipe = pipeline_with(vae, kind, **more)
    with pytest.raises(UnsupportedPipelineError, match=said) as failure:
        decoder_for(decoder, pipe, None, Layout("bchw"), BACKEND)
    assert "Leave decoder= out" in str(failure.value)


def test_refused_by_a_pipeline() -> None:
    refused("vae", None, "decoder='vae' for this ToyPipeline: it has no VAE that decodes")
    refused("vae", NoPictures(), "it has no VAE that decodes")
    refused("vae", ToyVAE(out_channels=6), "pictures of 6 channels, not of red, green and blue")
    refused("vae", Bare(), "no parameters to tell its dtype by")
    refused("vae", ToyVAE(), "two frames of its VAE's latents", "HunyuanImageRefinerPipeline")
    refused("vae", hooked(ToyVAE(), Hook()), "offloaded")
    refused("vae", hooked(ToyVAE(), Hook(offload=True)), "denoiser from the device in the middle")


def test_models_for_other_latents_are_refused() -> None:
    own = ToyVAE(scaling_factor=0.5)
    refused(
        ToyVAE(latent_channels=16), own, "latents of 16 channels, and those of the pipeline have 4"
    )
    refused(AutoencoderTiny(latent_channels=16), own, "16 channels")
    refused(ToyVAE(scaling_factor=0.13), own, "than those of the pipeline's ToyVAE, so it is a VAE")
    refused(ToyVAE(latent_channels=None), None, "how many channels its latents have")


def test_depth_beside_colours_is_left_out() -> None:
    vae = ToyVAE(out_channels=6)
    decode("vae", pipeline_with(vae, "StableDiffusionLDM3DPipeline"), cells())
    assert len(vae.seen) == 1


def test_hook_that_offloads_nothing() -> None:
    vae = hooked(ToyVAE(), Hook(offload=False))
    decode("vae", pipeline_with(vae), cells())
    assert len(vae.seen) == 1


def test_offloaded_after_binding() -> None:
    vae = ToyVAE()
    made = decoder_for("vae", pipeline_with(vae), None, Layout("bchw"), BACKEND)
    hooked(vae, Hook())
    with pytest.raises(UnsupportedPipelineError, match="offloaded"):
        made.decode(StrictTensor(cells()[:, :, 0]), None, "middle")
    assert not vae.seen


def test_vae_that_overflows_in_half_precision() -> None:
    """Where the pipeline would widen it before it decodes; nearly all say that they need it."""
    heeds = type("Heeds", (ToyPipeline,), {"upcast_vae": lambda self: None})()
    for dtype, pipe, ok in (
        (np.float16, heeds, False),
        (np.float32, heeds, True),
        (np.float16, ToyPipeline(), True),
    ):
        pipe.vae = ToyVAE(dtype=dtype, force_upcast=True)
        if ok:
            decode("vae", pipe, cells())
        else:
            with pytest.raises(UnsupportedPipelineError, match="overflows in float16"):
                decode("vae", pipe, cells())


@pytest.mark.parametrize(
    ("decoder", "error", "said"),
    [
        ("taesd", ValueError, "'vae', a model or a function, not 'taesd'"),
        (3, TypeError, "with decode and config, or a function of latents, not int"),
        (SimpleNamespace(decode=print), TypeError, "not SimpleNamespace"),
    ],
)
def test_what_a_decoder_can_be(decoder: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        decoder_for(decoder, pipeline_with(ToyVAE()), None, Layout("bchw"), BACKEND)


def test_latents_of_another_shape() -> None:
    made = decoder_for("vae", pipeline_with(ToyVAE()), None, Layout("bchw"), BACKEND)
    with pytest.raises(ValueError, match=r"\(2, 5, 4, 6\) do not fit the layout 'bchw' with 4"):
        made.decode(StrictTensor(np.zeros((2, 5, 4, 6))), None, "middle")


# Data


def test_data_is_of_known_pipelines() -> None:
    pipelines, vaes = known_decodings(), known_vaes()
    assert set(pipelines) <= set(known_pipelines())
    assert all(entry.source for entry in (*pipelines.values(), *vaes.values()))
    assert len(pipelines) > 5


def test_subclasses_decode_as_their_bases() -> None:
    base = type("WanAnimatePipeline", (), {})
    assert pipeline_decoding(type("Mine", (base,), {})()).first_frame == 1
    assert pipeline_decoding(object()).first_frame == 0
    assert vae_decoding(type("Mine", (type("VQModel", (), {}),), {})()).unscaled
