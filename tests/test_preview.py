"""Preview: where it writes, when, and how it fails."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unicb import LatentFormat, Preview, PreviewFrame, Target, UnsupportedPipelineError, bind
from unicb_numpy import backend
from unicb_numpy.pipelines import ToyPipeline

RED = """
name = "red"
latent_channels = 4
spatial_scale = 8
factors = [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
bias = [1.0, -1.0, -1.0]
output_range = [-1.0, 1.0]
source = "made up"
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.png"))


@pytest.mark.parametrize(
    ("every", "steps"), [(1, [0, 1, 2, 3, 4, 5]), (2, [0, 2, 4, 5]), (5, [0, 5]), (9, [0, 5])]
)
def test_every(pipe: ToyPipeline, every: int, steps: list[int]) -> None:
    frames: list[PreviewFrame] = []
    pipe("x", num_inference_steps=6, **bind(pipe, Preview(frames.append, every=every)))
    assert [frame.step for frame in frames] == steps


def test_frame(pipe: ToyPipeline) -> None:
    frames: list[PreviewFrame] = []
    pipe(["x", "y"], num_inference_steps=4, **bind(pipe, Preview(frames.append)))
    frame = frames[1]
    assert (frame.step, frame.num_timesteps, frame.timestep) == (1, 4, 750.0)
    assert [(image.mode, image.size) for image in frame.images] == [("RGB", (8, 8))] * 2
    assert np.asarray(frame.images[0]).std() > 0
    assert frame.images[0].tobytes() != frame.images[1].tobytes()


def test_template_for_one_picture(pipe: ToyPipeline, tmp_path: Path) -> None:
    to = tmp_path / "deep" / "er" / "{step:03d}_of_{num_timesteps}.png"
    pipe("x", num_inference_steps=2, **bind(pipe, Preview(to)))
    assert names(tmp_path) == ["000_of_2.png", "001_of_2.png"]
    assert Image.open(tmp_path / "deep" / "er" / "001_of_2.png").size == (8, 8)


def test_template_without_image_in_a_batch(pipe: ToyPipeline, tmp_path: Path) -> None:
    pipe(["x", "y"], num_inference_steps=1, **bind(pipe, Preview(tmp_path / "{step}.png")))
    assert names(tmp_path) == ["0-0.png", "0-1.png"]


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{stepp}.png", "'stepp'"),
        ("{step:banana}.png", "cannot be filled in"),
        ("{step.png", "cannot be filled in"),
        ("{step}{}.png", "cannot be filled in"),
        ("preview.png", "has no {step}"),
        ("{image}.png", "has no {step}"),
    ],
)
def test_bad_template(template: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Preview(template)


@pytest.mark.parametrize("to", [3, ["a.png"]])
def test_bad_sink(to: Any) -> None:
    with pytest.raises(TypeError, match="path template or a callable"):
        Preview(to)


def test_bad_every() -> None:
    with pytest.raises(ValueError, match="every must be at least 1, not 0"):
        Preview(print, every=0)
    with pytest.raises(TypeError, match="every must be an int"):
        Preview(print, every=1.5)  # type: ignore[arg-type]


def test_factors_from_file_or_object(pipe: ToyPipeline, tmp_path: Path) -> None:
    red = LatentFormat("red", 4, 8, ((0.0,) * 3,) * 4, (1.0, -1.0, -1.0), (-1.0, 1.0), "made up")
    path = tmp_path / "red.toml"
    path.write_text(RED)
    for factors in (red, path, str(path)):
        frames: list[PreviewFrame] = []
        pipe("x", **bind(pipe, Preview(frames.append, factors=factors)))
        assert frames[-1].images[0].getpixel((3, 3)) == (255, 0, 0)
    with pytest.raises(FileNotFoundError):
        Preview(print, factors=tmp_path / "missing.toml")


def test_unknown_latents_are_refused_at_bind() -> None:
    own = {name: x for name, x in vars(ToyPipeline).items() if name != "__dict__"}
    members = {**own, "__module__": "unicb_numpy.pipelines"}
    stranger = type("Stranger", (), members)()
    with pytest.raises(UnsupportedPipelineError, match="no preview for Stranger"):
        Preview(print).on_bind(Target(stranger, backend, None))


def test_unwritable_folder_warns_once_and_keeps_the_picture(
    pipe: ToyPipeline, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    plain = pipe("x")
    to = tmp_path / "file" / "{step}.png"
    with pytest.warns(RuntimeWarning, match="previews are off") as caught:
        out = pipe("x", **bind(pipe, Preview(to)))
    assert len(caught) == 1
    assert (out == plain).all()


def test_failed_sink_is_tried_again_in_the_next_run(pipe: ToyPipeline) -> None:
    calls: list[int] = []

    def sink(frame: PreviewFrame) -> None:
        calls.append(frame.step)
        raise RuntimeError("no")

    callbacks = bind(pipe, Preview(sink))
    for _ in range(2):
        with pytest.warns(RuntimeWarning, match="previews are off"):
            pipe("x", **callbacks)
    assert calls == [0, 0]


def test_nan_is_black_with_one_warning(pipe: ToyPipeline) -> None:
    frames: list[PreviewFrame] = []

    def spoil(_pipe: Any, index: int, _t: Any, tensors: dict[str, Any]) -> None:
        if index >= 1:
            tensors["latents"] = tensors["latents"] * float("nan")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pipe("x", num_inference_steps=4, **bind(pipe, spoil, Preview(frames.append)))
    ours = [w for w in caught if "not finite" in str(w.message)]
    assert len(ours) == 1
    # What the model saw coming in step 1 was still fine: a callback spoilt the latents after it.
    assert "step 2" in str(ours[0].message)
    assert len(frames) == 4
    assert all(np.asarray(frame.images[0]).any() for frame in frames[:2])
    assert not any(np.asarray(frame.images[0]).any() for frame in frames[2:])


def test_one_preview_on_two_pipelines_keeps_their_formats_apart(tmp_path: Path) -> None:
    first, second = ToyPipeline(), ToyPipeline()
    second.name_or_path = tmp_path  # type: ignore[attr-defined]
    (tmp_path / "preview.toml").write_text(RED)
    frames: list[PreviewFrame] = []
    preview = Preview(frames.append)
    one, two = bind(first, preview), bind(second, preview)
    first("x", num_inference_steps=1, **one)
    second("x", num_inference_steps=1, **two)
    colours = [frame.images[0].getpixel((3, 3)) for frame in frames]
    assert colours[0] != (255, 0, 0)
    assert colours[1] == (255, 0, 0)
