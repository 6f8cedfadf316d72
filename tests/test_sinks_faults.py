"""Sinks that cannot do what they are asked: the disk, the path, the user's own code."""

from __future__ import annotations

import errno
import io
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sink_helpers
from PIL import Image
from sink_helpers import LONG, Blocked, files, frame, picture, show

from unicb import Preview, bind
from unicb.sinks import Animation, Background, ContactSheet, FileSink, PreviewFrame, as_sink
from unicb.sinks import _save as saving
from unicb_numpy.pipelines import ToyPipeline

no_thread_is_left = sink_helpers.no_thread_is_left

WRITTEN = {
    "files": ["0.png", "1.png", "2.png"],
    "jpeg": ["0.jpg", "1.jpg", "2.jpg"],
    "videos": ["0.webp", "1.webp", "2.webp"],
    "animation": ["run.gif"],
    "sheet": ["run.png"],
}
every_writer = pytest.mark.parametrize("name", WRITTEN)


def writer(name: str, folder: Path) -> Any:
    if name == "animation":
        return Animation(folder / "run.gif")
    if name == "sheet":
        return ContactSheet(folder / "run.png")
    sink = FileSink(folder / f"{{step}}{Path(WRITTEN[name][0]).suffix}")
    return _Videos(sink) if name == "videos" else sink


class _Videos:
    """Makes videos of the pictures, for a sink that animates."""

    def __init__(self, sink: FileSink) -> None:
        self._sink = sink
        self.close = sink.close

    def __call__(self, shown: PreviewFrame) -> None:
        video = [*shown.images, picture(7, shown.images[0].size)]
        self._sink(PreviewFrame(shown.step, shown.num_timesteps, 0.0, shown.images, videos=[video]))


# --- templates -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{stepp}.png", r"'stepp'.*fields may be \{step\}, \{image\}, \{num_timesteps\}"),
        ("{step}/{prompt}.png", r"'prompt'.*fields may be \{step\}"),
        ("{step:banana}.png", "cannot be filled in"),
        ("{step.png", "cannot be filled in"),
        ("{step}{}.png", "cannot be filled in"),
        ("{step.nothing}.png", "cannot be filled in"),
        ("preview.png", r"has no \{step\}"),
        ("{image}.png", r"has no \{step\}"),
        ("", r"has no \{step\}"),
        ("steps/{step}", "end it in .png"),
        ("steps/{step}/.png", "end it in .png"),
        ("{step}.txt", "end it in .png"),
        ("{step:.0f}", "end it in .png"),
    ],
)
@pytest.mark.parametrize("make", [as_sink, FileSink, Background])
def test_bad_template(make: Callable[[str], Any], template: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make(template)


@pytest.mark.parametrize("suffix", ["xbm", "msp", "palm", "blp", "h5", "bufr", "grib"])
def test_formats_that_pillow_registers_but_cannot_write_in_colour(suffix: str) -> None:
    Image.init()
    assert Image.EXTENSION[f".{suffix}"] in Image.SAVE
    for make in (FileSink, ContactSheet):
        with pytest.raises(ValueError, match=f"0.{suffix}.*end it in .png"):
            make(f"{{step}}.{suffix}" if make is FileSink else f"0.{suffix}")


def test_steps_of_nothing_are_refused_when_a_preview_is_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="every must be at least 1, not 0"):
        Preview(tmp_path / "{step}.png", every=0)
    assert os.listdir(tmp_path) == []


# --- the disk --------------------------------------------------------------------------------

NO_SPACE = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class _FullFile(io.FileIO):
    """Takes the first few bytes, as a disk does that has room for no more."""

    def write(self, data: Any) -> int:
        super().write(bytes(data)[:5])
        raise NO_SPACE

    def fileno(self) -> int:
        raise io.UnsupportedOperation  # else pillow's encoders write past this object


def _open_on_full_device(path: Path, mode: str) -> Any:
    open(path, "xb").close()
    return open("/dev/full", "r+b")


def _rename_without_space(part: Path, path: Path) -> None:
    assert part.stat().st_size > 0
    raise NO_SPACE


def _fill_disk(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    if how == "rename":
        monkeypatch.setattr(os, "replace", _rename_without_space)
    elif how == "write":
        monkeypatch.setattr(saving, "open", _FullFile, raising=False)
    elif os.path.exists("/dev/full"):
        monkeypatch.setattr(saving, "open", _open_on_full_device, raising=False)
    else:
        pytest.skip("this system has no /dev/full")


@pytest.mark.parametrize("how", ["write", "device", "rename"])
@every_writer
def test_full_disk_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, how: str
) -> None:
    first = tmp_path / WRITTEN[name][0]
    for before in ({}, {first.name: b"before"}):
        for old, content in before.items():
            (tmp_path / old).write_bytes(content)
        sink = writer(name, tmp_path)
        with monkeypatch.context() as patch:
            _fill_disk(patch, how)
            with pytest.raises(OSError, match="No space left") as caught:
                show(sink)
        assert caught.value.errno == errno.ENOSPC
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    show(sink)  # there is room again
    assert files(tmp_path) == WRITTEN[name]
    assert Image.open(first).format is not None


@every_writer
def test_full_disk_in_a_run(
    pipe: ToyPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    plain = pipe("x", num_inference_steps=3)
    callbacks = bind(pipe, Preview(Background(writer(name, tmp_path), flush_timeout=LONG)))
    with monkeypatch.context() as patch:
        _fill_disk(patch, "write")
        with pytest.warns(RuntimeWarning, match="No space left") as caught:
            out = pipe("x", num_inference_steps=3, **callbacks)
    assert len(caught) == 1
    assert (out == plain).all()
    assert os.listdir(tmp_path) == []
    pipe("x", num_inference_steps=3, **callbacks)
    assert files(tmp_path) == WRITTEN[name]


@every_writer
def test_unwritable_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "deep"
    folder.write_text("in the way")
    sink = writer(name, folder)
    with pytest.raises(OSError, match="deep"):
        show(sink)
    assert folder.read_text() == "in the way"
    assert os.listdir(tmp_path) == ["deep"]
    folder.unlink()
    show(sink)  # and then it works again, with no frame of the run before
    assert files(folder) == WRITTEN[name]
    if name == "animation":
        assert Image.open(folder / "run.gif").n_frames == 3


@every_writer
def test_read_only_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def read_only(path: Path, mode: str) -> Any:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(saving, "open", read_only, raising=False)
    with pytest.raises(OSError, match="Read-only"):
        show(writer(name, tmp_path))
    assert os.listdir(tmp_path) == []


@every_writer
def test_folder_of_the_files_name(tmp_path: Path, name: str) -> None:
    taken = tmp_path / WRITTEN[name][0]
    taken.mkdir()
    with pytest.raises(OSError, match=taken.name):
        show(writer(name, tmp_path))
    assert os.listdir(tmp_path) == [taken.name]
    assert os.listdir(taken) == []


def test_name_that_is_too_long_for_the_disk(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="000"):
        show(FileSink(tmp_path / "{step:05000d}.png"))
    assert os.listdir(tmp_path) == []


def test_folder_that_is_taken_away_is_made_again(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "steps" / "{step}.png")
    sink(frame(0))
    shutil.rmtree(tmp_path / "steps")
    sink(frame(1))
    assert files(tmp_path) == ["steps/1.png"]


@pytest.mark.parametrize("name", ["videos", "animation", "sheet"])
def test_readers_never_see_half_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path, real = tmp_path / WRITTEN[name][0], os.replace
    sink, seen = writer(name, tmp_path), []
    show(sink, 1)
    before = path.read_bytes()

    def replace(part: Any, target: Any) -> None:
        seen.append((path.read_bytes() == before, os.path.getsize(part) > 0))
        real(part, target)

    monkeypatch.setattr(os, "replace", replace)
    for step in (0, 4, 8):
        sink(PreviewFrame(step, 9, 0.0, [picture(50 + step, (12, 12))]))
    sink.close()
    assert seen[0] == (True, True)
    assert path.read_bytes() != before
    assert [name for name in os.listdir(tmp_path) if name.endswith(".tmp")] == []


# --- the user's own code ---------------------------------------------------------------------


class _Odd(Exception):
    """One that says nothing."""

    def __str__(self) -> str:
        return ""


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        StopIteration(),
        MemoryError(),
        _Odd(),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("wrap", [lambda sink: sink, lambda sink: Background(sink)])
def test_callable_that_raises_costs_its_previews_alone(
    pipe: ToyPipeline, tmp_path: Path, error: BaseException, wrap: Callable[[Any], Any]
) -> None:
    def sink(_: PreviewFrame) -> None:
        calls.append(1)
        raise error

    plain = pipe("x", num_inference_steps=3)
    sheet = Background(ContactSheet(tmp_path / "run.png"), flush_timeout=LONG)
    callbacks = bind(pipe, Preview(wrap(sink)), Preview(sheet))
    for _ in range(2):
        calls: list[int] = []
        with pytest.warns(RuntimeWarning, match=type(error).__name__) as caught:
            out = pipe("x", num_inference_steps=3, **callbacks)
        assert len(caught) == 1
        assert len(calls) == 1
        assert (out == plain).all()
        assert files(tmp_path) == ["run.png"]
        (tmp_path / "run.png").unlink()


# --- sinks that block ------------------------------------------------------------------------


def test_blocked_sink_delays_neither_the_loop_nor_the_end(pipe: ToyPipeline) -> None:
    """It is released only after the run: a run that waited for it would never come there."""
    plain, sink = pipe("x"), Blocked(at=0)

    def wait_until_it_blocks(*_: Any) -> None:
        assert sink.reached.wait(LONG)

    background = Background(sink, maxsize=2, flush_timeout=0.01)
    callbacks = bind(pipe, Preview(background), wait_until_it_blocks)
    with pytest.warns(RuntimeWarning, match="given up") as caught:
        out = pipe("x", **callbacks)
    assert len(caught) == 1
    assert (out == plain).all()
    assert not sink.closed.is_set()
    sink.release.set()


@every_writer
def test_disk_that_blocks_delays_no_run(
    pipe: ToyPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    replace, reached, release = os.replace, threading.Event(), threading.Event()

    def blocked(part: Path, path: Path) -> None:
        reached.set()
        assert release.wait(LONG)
        replace(part, path)

    def wait_until_it_blocks(*_: Any) -> None:
        if name not in ("animation", "sheet"):  # those write when the run is over
            assert reached.wait(LONG)

    plain = pipe("x", num_inference_steps=3)
    background = Background(writer(name, tmp_path), flush_timeout=0.01)
    callbacks = bind(pipe, Preview(background), wait_until_it_blocks)
    before = set(threading.enumerate())
    monkeypatch.setattr(os, "replace", blocked)
    with pytest.warns(RuntimeWarning, match="given up") as caught:
        out = pipe("x", num_inference_steps=3, **callbacks)
    assert len(caught) == 1
    assert (out == plain).all()
    assert files(tmp_path) == [file for file in files(tmp_path) if file.endswith(".tmp")]
    release.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(LONG)
    # What it was busy with is complete, and what waited behind is dropped.
    assert files(tmp_path) == WRITTEN[name][:1]
    assert Image.open(tmp_path / WRITTEN[name][0]).size[0] > 0


class Asking:
    """A sink whose other methods fail, in the run's thread."""

    asks = True

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.is_closed = False

    def __call__(self, frame: PreviewFrame) -> None:
        self.steps.append(frame.step)

    def close(self) -> None:
        self.is_closed = True

    def asked(self) -> None:
        raise OSError("nobody to ask")

    def ended(self, outcome: str, done: int) -> None:
        raise OSError("nobody to tell")


def test_sink_that_cannot_be_asked_costs_no_run() -> None:
    pipe, sink = ToyPipeline(), Asking()
    plain = pipe("a cat")
    with pytest.warns(RuntimeWarning, match=r"asked\(\) of the sink .* nobody to ask"):
        assert (bind(pipe, Preview(sink))("a cat") == plain).all()
    assert sink.is_closed
    assert sink.steps == list(range(10))
