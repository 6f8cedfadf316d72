"""Videos in sinks: their shape, the files that hold them, and sinks that show pictures alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sink_helpers
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sink_helpers import durations, files, frame, picture

from unicb.sinks import (
    Animation,
    ContactSheet,
    FileSink,
    PreviewFrame,
    as_sink,
    shape_images,
    shape_videos,
)

no_thread_is_left = sink_helpers.no_thread_is_left


def video(seed: int, length: int = 5, size: tuple[int, int] = (8, 6)) -> list[Image.Image]:
    return [picture(1000 * seed + index, size) for index in range(length)]


def video_frame(step: int = 3, rows: int = 2, length: int = 5) -> PreviewFrame:
    videos = [video(10 * step + row, length) for row in range(rows)]
    middles = [row[len(row) // 2] for row in videos]
    return PreviewFrame(step, 10, 0.0, middles, "exact", videos)


def played(path: Path) -> list[np.ndarray[Any, Any]]:
    image, shown = Image.open(path), []
    for index in range(image.n_frames):
        image.seek(index)
        shown.append(np.asarray(image.convert("RGB")).astype(int))
    return shown


def test_frames_of_pictures_have_no_videos() -> None:
    first, second = frame(0), frame(1)
    assert first.videos == []
    assert first.videos is not second.videos


# --- shape_videos ----------------------------------------------------------------------------


def test_which_of_the_batch() -> None:
    videos = [video(row) for row in range(3)]
    assert shape_videos(videos) == videos
    assert shape_videos(videos, batch="first") == videos[:1]
    assert shape_videos(videos, batch=2) == videos[2:]
    assert shape_videos([tuple(each) for each in videos], batch=0) == videos[:1]


@given(
    rows=st.integers(1, 5),
    length=st.integers(1, 4),
    size=st.none() | st.integers(1, 20) | st.tuples(st.integers(1, 20), st.integers(1, 20)),
    batch=st.sampled_from(["all", "first", "grid", 0]),
)
def test_moments_are_shaped_as_pictures_are(rows: int, length: int, size: Any, batch: Any) -> None:
    videos = [video(row, length) for row in range(rows)]
    shaped = shape_videos(videos, size, batch)
    assert {len(each) for each in shaped} == {length}
    for moment in range(length):
        expected = shape_images([each[moment] for each in videos], size, batch)
        found = [each[moment] for each in shaped]
        assert [(each.size, each.tobytes()) for each in found] == [
            (each.size, each.tobytes()) for each in expected
        ]


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"batch": "some"}, ValueError, "batch must be 'all', 'first', 'grid' or an index"),
        ({"batch": 3}, IndexError, "batch=3: there is no such picture among 3"),
        ({"size": 0}, ValueError, "size must be at least 1, not 0"),
        ({"size": "64"}, TypeError, "size must be the longer side in pixels, an int"),
        ({"videos": [], "batch": "grid"}, ValueError, r"at least one video.*\[\]"),
        (
            {"videos": [video(0, 2), video(1, 3)], "batch": "grid"},
            ValueError,
            r"of one length; these have \[2, 3\] frames",
        ),
    ],
)
def test_bad_shape(arguments: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        shape_videos(**{"videos": [video(row) for row in range(3)], **arguments})


def test_videos_of_other_lengths_are_no_matter_outside_of_a_grid() -> None:
    assert [len(each) for each in shape_videos([video(0, 2), video(1, 3)], 20)] == [2, 3]


# --- files -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "animates"),
    [
        (".webp", True),
        (".gif", True),
        (".png", True),
        (".PNG", True),
        (".apng", True),
        (".jpg", False),
        (".bmp", False),
        (".tiff", False),
        (".pdf", False),
    ],
)
def test_which_files_animate(suffix: str, animates: bool) -> None:
    assert FileSink(f"{{step}}{suffix}").animates is animates
    assert as_sink(f"{{step}}{suffix}").animates is animates  # type: ignore[attr-defined]


def test_pillow_without_animated_webp(monkeypatch: pytest.MonkeyPatch) -> None:
    Image.init()
    monkeypatch.delitem(Image.SAVE_ALL, "WEBP")
    assert not FileSink("{step}.webp").animates


@pytest.mark.parametrize("suffix", [".webp", ".gif", ".png", ".apng"])
def test_file_of_a_video(tmp_path: Path, suffix: str) -> None:
    # Plain colours, which formats that lose something keep.
    videos = [
        [
            Image.new("RGB", (8, 6), (40 * moment, 250 - 40 * moment, 200 * row))
            for moment in range(5)
        ]
        for row in range(2)
    ]
    sink = FileSink(tmp_path / f"{{step:03d}}{suffix}")
    sink(PreviewFrame(3, 10, 0.0, [row[2] for row in videos], "exact", videos))
    sink.close()
    assert files(tmp_path) == [f"003-0{suffix}", f"003-1{suffix}"]
    for row, expected in enumerate(videos):
        path = tmp_path / f"003-{row}{suffix}"
        assert Image.open(path).info["loop"] == 0
        assert durations(path) == [120 if suffix == ".gif" else 125] * 5
        for shown, wanted in zip(played(path), expected, strict=True):
            assert np.abs(shown - np.asarray(wanted)).max() <= (0 if "png" in suffix else 5)


def test_video_of_one_row_needs_no_number(tmp_path: Path) -> None:
    FileSink(tmp_path / "{step}.png")(video_frame(rows=1))
    assert files(tmp_path) == ["3.png"]
    assert len(played(tmp_path / "3.png")) == 5


@pytest.mark.parametrize(("fps", "milliseconds"), [(4, 250), (16.0, 62), (0.1, 10_000), (50, 20)])
def test_fps(tmp_path: Path, fps: float, milliseconds: int) -> None:
    FileSink(tmp_path / "{step}.webp", fps=fps)(video_frame(rows=1))
    assert durations(tmp_path / "3.webp") == [milliseconds] * 5


@pytest.mark.parametrize(
    ("fps", "error"),
    [
        (0, ValueError),
        (-1, ValueError),
        (51, ValueError),
        (float("nan"), ValueError),
        ("8", TypeError),
        (None, TypeError),
        (True, TypeError),
    ],
)
def test_bad_fps(fps: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="fps must be"):
        FileSink("{step}.webp", fps=fps)


def test_other_files_have_the_middle_frame(tmp_path: Path) -> None:
    shown = video_frame()
    FileSink(tmp_path / "{step}-{image}.bmp")(shown)
    assert files(tmp_path) == ["3-0.bmp", "3-1.bmp"]
    for row in range(2):
        picture = Image.open(tmp_path / f"3-{row}.bmp")
        assert picture.tobytes() == shown.videos[row][2].tobytes()


@pytest.mark.parametrize("suffix", [".webp", ".gif", ".png"])
def test_videos_that_do_not_move_are_pictures(tmp_path: Path, suffix: str) -> None:
    still = Image.new("RGB", (8, 6), "red")
    for step, videos in enumerate([[[still]], [[still] * 4]]):
        FileSink(tmp_path / f"{{step}}{suffix}")(PreviewFrame(step, 2, 0.0, [still], "", videos))
        [shown] = played(tmp_path / f"{step}{suffix}")
        assert np.abs(shown - np.asarray(still)).max() < 3


def test_frames_of_sizes_that_differ_get_that_of_the_last(tmp_path: Path) -> None:
    moving = [picture(0, (4, 4)), picture(1, (9, 3)), picture(2, (12, 10))]
    FileSink(tmp_path / "{step}.png")(PreviewFrame(0, 1, 0.0, moving[:1], "", [moving]))
    assert [each.shape for each in played(tmp_path / "0.png")] == [(10, 12, 3)] * 3


def test_video_of_no_frames_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one picture"):
        FileSink(tmp_path / "{step}.png")(PreviewFrame(0, 1, 0.0, [picture(0)], "", [[]]))
    assert files(tmp_path) == []


# --- a run in one file -----------------------------------------------------------------------


@pytest.mark.parametrize("make", [Animation, ContactSheet])
def test_runs_in_one_file_show_the_middle_frames(tmp_path: Path, make: Any) -> None:
    videos, pictures = make(tmp_path / "videos.gif"), make(tmp_path / "pictures.gif")
    for step in range(4):
        shown = video_frame(step)
        videos(shown)
        pictures(PreviewFrame(step, 10, 0.0, [row[2] for row in shown.videos]))
    videos.close()
    pictures.close()
    assert (tmp_path / "videos.gif").read_bytes() == (tmp_path / "pictures.gif").read_bytes()
    if make is Animation:
        assert len(durations(tmp_path / "videos.gif")) == 4
