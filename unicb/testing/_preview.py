"""Preview: every picture in the batch has its right colours, and nothing gets in the run's way."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from unicb import Callback, LatentFormat, Preview, PreviewFrame, Step, bind
from unicb.latents import to_rgb
from unicb.latents.denoised import DenoisedEstimate
from unicb.testing._base import Checks, on_sampled_kinds
from unicb.testing.harness import Case

FORMAT = LatentFormat(
    name="test",
    latent_channels=4,
    spatial_scale=8,
    factors=((0.5, 0.0, 0.1), (0.0, 0.5, -0.2), (0.1, -0.3, 0.4), (-0.2, 0.2, 0.2)),
    bias=(0.1, 0.0, -0.1),
    output_range=(-1.0, 1.0),
    source="made up",
)


class PreviewChecks(Checks):
    @on_sampled_kinds
    def test_preview_shows_every_step_and_picture(self, kind: str) -> None:
        """One frame a step, one picture a row of the batch, each with its own latents' colours,
        and the latents bit-identical."""
        pipeline, case = self.pipeline(kind), Case(kind, images_per_prompt=2)
        plain = self.harness.run(pipeline, case)
        frames: list[PreviewFrame] = []
        colours: list[npt.NDArray[np.uint8]] = []

        class Look(Callback):
            tensors = ("latents",)

            def on_step_end(self, step: Step) -> None:
                colours.append(to_rgb(step["latents"], FORMAT, step.ops).pixels)

        preview = Preview(frames.append, factors=FORMAT, source="noisy")
        out = self.harness.run(pipeline, case, **bind(pipeline, preview, Look()))
        shown = [np.stack([np.asarray(image) for image in frame.images]) for frame in frames]
        assert same_colours(shown, colours)
        assert not np.array_equal(shown[0][0], shown[0][1])
        assert [frame.step for frame in frames] == list(range(frames[0].num_timesteps))
        assert all(len(frame.images) == 2 for frame in frames)
        height, width = out.shape[-2:]
        assert all(image.size == (width, height) for frame in frames for image in frame.images)
        assert (out == plain).all()

    @on_sampled_kinds
    def test_preview_shows_denoised_latents(self, kind: str) -> None:
        """Denoised latents, where they can be computed, are shown after every whole step but the
        first, and the finished latents last; the latents are bit-identical. Elsewhere every step
        shows the latents as they are, and says so."""
        pipeline, case = self.pipeline(kind), Case(kind)
        plain = self.harness.run(pipeline, case)
        frames: dict[str, list[PreviewFrame]] = {"denoised": [], "noisy": []}
        whole: list[bool] = []
        colours: list[npt.NDArray[np.uint8]] = []

        class Look(Callback):
            tensors = ("latents",)

            def on_step_end(self, step: Step) -> None:
                whole.append(step.is_whole or step.index + 1 == step.num_timesteps)
                colours.append(to_rgb(step["latents"], FORMAT, step.ops).pixels[0])

        previews = [
            Preview(to.append, factors=FORMAT, source="noisy" if name == "noisy" else "denoised")
            for name, to in frames.items()
        ]
        out = self.harness.run(pipeline, case, **bind(pipeline, *previews, Look()))
        assert (out == plain).all()
        if DenoisedEstimate.kind_of(pipeline.scheduler) is None:
            assert frames["denoised"] == frames["noisy"]
            return
        denoised = {frame.step: frame for frame in frames["denoised"]}
        noisy = {frame.step: frame for frame in frames["noisy"]}
        assert list(denoised) == [i for i, is_whole in enumerate(whole) if is_whole]
        kinds = [frame.source for frame in denoised.values()]
        assert set(kinds[1:]) <= {"exact", "estimate"}
        assert {frame.source for frame in noisy.values()} == {"noisy"}
        last = len(whole) - 1
        assert same_colours(np.asarray(denoised[last].images[0]), colours[last])
        between = list(denoised)[1:-1]
        assert between
        assert all(denoised[i].images[0].tobytes() != noisy[i].images[0].tobytes() for i in between)

    def test_preview_writes_files(self, tmp_path: Path) -> None:
        """A path template makes its folders and one file for each picture shown."""
        pipeline, case = self.pipeline(), self.case(prompts=2)
        to = tmp_path / "new" / "{image}" / "{step:03d}.png"
        frames: list[PreviewFrame] = []
        callbacks = bind(pipeline, Preview(str(to), every=2), Preview(frames.append, every=2))
        self.harness.run(pipeline, case, **callbacks)
        written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")}
        assert written == {f"new/{i}/{s:03d}.png" for i in (0, 1) for s in (0, 2, 3)}
        for frame in frames:
            for index, image in enumerate(frame.images):
                path = tmp_path / "new" / str(index) / f"{frame.step:03d}.png"
                assert Image.open(path).tobytes() == image.tobytes()

    def test_failing_sink_never_costs_the_picture(self) -> None:
        """A sink that raises is switched off for its run with one warning; the picture is the
        same."""
        pipeline, case = self.pipeline(), self.case()
        plain = self.harness.run(pipeline, case)
        calls: list[int] = []

        def sink(frame: PreviewFrame) -> None:
            calls.append(frame.step)
            raise OSError("disk full")

        callbacks = bind(pipeline, Preview(sink))
        for run in (1, 2):
            with pytest.warns(RuntimeWarning, match="disk full") as caught:
                out = self.harness.run(pipeline, case, **callbacks)
            assert len([w for w in caught if "disk full" in str(w.message)]) == 1
            assert calls == [0] * run
            assert (out == plain).all()

    def test_preview_colours(self, dtype: str) -> None:
        """Colours are ``latents @ factors + bias`` to one level in 255, in every dtype."""
        latents = np.random.default_rng(3).normal(size=(2, 4, 6, 5)).astype(np.float32)
        tensor = self.harness.tensor(latents, dtype)
        ops = self.harness.backend.ops
        # What the tensor holds, after rounding to its dtype, is what is to be shown.
        held = ops.to_numpy(tensor).astype(np.float64)
        rgb = np.einsum("bchw,cr->bhwr", held, np.array(FORMAT.factors)) + FORMAT.bias
        expected = np.clip((rgb + 1) / 2 * 255, 0, 255)
        pixels, finite = to_rgb(tensor, FORMAT, ops)
        tolerance = 4.0 if dtype == "bfloat16" else 1.0
        assert finite
        assert pixels.dtype == np.uint8
        assert np.abs(pixels - expected).max() <= tolerance

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_latents_that_are_not_finite_are_black(self, dtype: str, bad: float) -> None:
        """NaN and infinities are shown black and reported; the other cells keep their colours."""
        latents = np.zeros((1, 4, 3, 3), dtype=np.float32)
        latents[0, 2, 1, 1] = bad
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            tensor = self.harness.tensor(latents, dtype)
            pixels, finite = to_rgb(tensor, FORMAT, self.harness.backend.ops)
        assert not finite
        black = (pixels == 0).all(axis=-1)[0]
        assert black.tolist() == [[False] * 3, [False, True, False], [False] * 3]


def same_colours(a: Any, b: Any) -> bool:
    """Return whether these are equal to one level in 255: what computes one need not be what
    computes the other, and a level ends somewhere."""
    same_shape = np.shape(a) == np.shape(b)
    return same_shape and bool(np.abs(np.subtract(a, b, dtype=np.int16)).max() <= 1)
