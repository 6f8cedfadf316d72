"""Sinks: where frames go, how they are shaped, and that nobody waits for them."""

from __future__ import annotations

import contextvars
import errno
import gc
import io
import math
import os
import re
import threading
import warnings
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sink_helpers
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from sink_helpers import LONG, Blocked, durations, files, frame, picture, show

from unicb import Preview, bind
from unicb.sinks import (
    Animation,
    Background,
    ContactSheet,
    PreviewFrame,
    Throttle,
    as_sink,
    check_batch,
    check_size,
    grid,
    shape_images,
)
from unicb.sinks._png import write_png
from unicb.sinks._thinned import Thinned
from unicb_numpy.pipelines import ToyPipeline

no_thread_is_left = sink_helpers.no_thread_is_left


# --- as_sink ---------------------------------------------------------------------------------


def test_template_writes_files(tmp_path: Path) -> None:
    for to in (str(tmp_path / "a/{step:03d}.png"), tmp_path / "b" / "{image}/{step}.webp"):
        sink = as_sink(to)
        sink(frame(7, batch=2))
        sink.close()
    assert files(tmp_path) == ["a/007-0.png", "a/007-1.png", "b/0/7.webp", "b/1/7.webp"]
    assert Image.open(tmp_path / "a/007-1.png").tobytes() == frame(7, batch=2).images[1].tobytes()


def test_functions_and_collectors() -> None:
    seen: list[int] = []
    everything: list[PreviewFrame] = []
    last_two: deque[PreviewFrame] = deque(maxlen=2)
    sinks = [as_sink(to) for to in (lambda frame: seen.append(frame.step), everything, last_two)]
    for step in range(4):
        for sink in sinks:
            sink(frame(step))
    for sink in sinks:
        sink.close()
    assert seen == [0, 1, 2, 3]
    assert [frame.step for frame in everything] == [0, 1, 2, 3]
    assert [frame.step for frame in last_two] == [2, 3]


def test_sink_is_itself() -> None:
    sink = Blocked(None)
    assert as_sink(sink) is sink
    assert as_sink(as_sink([])).close() is None


@pytest.mark.parametrize("to", [3, None, (), ("a.png",), ["a.png"], [Path("a")], b"a{step}.png"])
def test_bad_sink(to: Any) -> None:
    with pytest.raises(TypeError, match="path template or a callable"):
        as_sink(to)


def test_class_in_place_of_a_sink() -> None:
    with pytest.raises(TypeError, match=r"Animation is a class: write Animation\(\.\.\.\)"):
        as_sink(Animation)


# --- writing ---------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="permissions as POSIX has them")
def test_files_have_the_permissions_of_any_other(tmp_path: Path) -> None:
    show(ContactSheet(tmp_path / "run.png"))
    (tmp_path / "other").write_bytes(b"")
    assert (tmp_path / "run.png").stat().st_mode == (tmp_path / "other").stat().st_mode


# --- Animation -------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".webp", ".gif", ".GIF"])
def test_animation(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / f"run{suffix}"
    sink = Animation(path, duration=0.2, hold=1.5, size=20)
    for step in range(4):
        sink(frame(step, 4, batch=3))
        assert not path.exists()
    sink.close()
    assert Image.open(path).size == (42, 42)
    assert Image.open(path).info["loop"] == 0
    assert durations(path) == [200, 200, 200, 1500]


def test_animation_of_nothing_is_not_written(tmp_path: Path) -> None:
    Animation(tmp_path / "run.gif").close()
    ContactSheet(tmp_path / "run.png").close()
    assert files(tmp_path) == []


def test_animation_starts_anew_with_each_run(tmp_path: Path) -> None:
    sink = Animation(tmp_path / "run.gif")
    for steps in (5, 2):
        show(sink, steps)
        assert len(durations(tmp_path / "run.gif")) == steps


def test_animation_of_one_frame_and_of_sizes_that_change(tmp_path: Path) -> None:
    sink = Animation(tmp_path / "run.webp")
    show(sink, 1)
    assert Image.open(tmp_path / "run.webp").size == (8, 8)
    for step, size in enumerate([(8, 8), (16, 4), (16, 12)]):
        sink(PreviewFrame(step, 3, 0.0, [picture(step, size)]))
    sink.close()
    assert Image.open(tmp_path / "run.webp").size == (16, 12)
    assert len(durations(tmp_path / "run.webp")) == 3


def test_animation_holds_a_bounded_number(tmp_path: Path) -> None:
    show(Animation(tmp_path / "run.gif", max_frames=6), 200)
    assert 3 <= len(durations(tmp_path / "run.gif")) <= 6


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"path": "run.png"}, ValueError, r"\.webp or \.gif, not as 'run\.png'"),
        ({"duration": 0}, ValueError, r"duration must be in 0\.01\.\.60, not 0"),
        ({"duration": math.nan}, ValueError, "duration"),
        ({"duration": "1"}, TypeError, "duration must be a number"),
        ({"hold": 61}, ValueError, "hold"),
        ({"max_frames": 1}, ValueError, "max_frames must be at least 2, not 1"),
        ({"size": 0}, ValueError, "size must be at least 1"),
        ({"batch": "some"}, ValueError, "'all', 'first', 'grid' or an index, not 'some'"),
    ],
)
def test_bad_animation(arguments: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        Animation(**{"path": "run.gif", **arguments})


def test_pillow_without_animated_webp(monkeypatch: pytest.MonkeyPatch) -> None:
    Image.init()
    monkeypatch.delitem(Image.SAVE_ALL, "WEBP")
    with pytest.raises(ValueError, match=r"without animated WEBP; write a \.gif"):
        Animation("run.webp")


@given(count=st.integers(0, 300), limit=st.integers(2, 20))
def test_thinned_is_even_and_bounded(count: int, limit: int) -> None:
    thinned, image = Thinned(limit), picture(0)
    for step in range(count):
        thinned.add(step, image)
    steps = [shown.step for shown in thinned.take()]
    assert len(steps) <= limit
    if count <= limit:
        assert steps == list(range(count))
    else:
        assert (steps[0], steps[-1]) == (0, count - 1)
        gaps = {int(gap) for gap in np.diff(steps[:-1])}
        assert len(gaps) <= 1
        assert steps[-1] - steps[-2] <= (max(gaps) if gaps else count)
    assert thinned.take() == []


# --- ContactSheet ----------------------------------------------------------------------------


def test_sheet_without_labels(tmp_path: Path) -> None:
    show(ContactSheet(tmp_path / "run.png", columns=2, label=False), 3)
    sheet = np.asarray(Image.open(tmp_path / "run.png"))
    assert sheet.shape == (20, 20, 3)
    for step, (top, left) in enumerate([(0, 0), (0, 12), (12, 0)]):
        shown = sheet[top : top + 8, left : left + 8]
        assert (shown == np.asarray(frame(step).images[0])).all()
    assert (sheet[:, 8:12] == 255).all()
    assert (sheet[12:, 12:] == 255).all()


def test_sheet_with_labels(tmp_path: Path) -> None:
    show(ContactSheet(tmp_path / "run.png", columns=3, size=40), 3)
    show(ContactSheet(tmp_path / "plain.png", columns=3, size=40, label=False), 3)
    sheet, plain = (np.asarray(Image.open(tmp_path / name)) for name in ("run.png", "plain.png"))
    extra = sheet.shape[0] - plain.shape[0]
    assert sheet.shape[1] == plain.shape[1] == 3 * 40 + 2 * 4
    assert extra > 5
    assert (sheet[extra:] == plain).all()
    labels = [sheet[:extra, left : left + 40] for left in (0, 44, 88)]
    assert all(label.min() < 100 for label in labels)
    assert not (labels[0] == labels[1]).all()


def test_sheet_makes_room_for_numbers_wider_than_pictures(tmp_path: Path) -> None:
    sink = ContactSheet(tmp_path / "run.png")
    sink(PreviewFrame(123456, 200000, 0.0, [picture(0, (2, 2))]))
    sink.close()
    assert Image.open(tmp_path / "run.png").width > 20


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"path": "run"}, ValueError),
        ({"path": "run.txt"}, ValueError),
        ({"columns": 0}, ValueError),
        ({"columns": 1.5}, TypeError),
        ({"size": (8,)}, TypeError),
        ({"max_frames": 0}, ValueError),
    ],
)
def test_bad_sheet(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        ContactSheet(**{"path": "run.png", **arguments})


# --- shape_images and grid -------------------------------------------------------------------


def test_which_of_the_batch() -> None:
    images = [picture(seed) for seed in range(3)]
    assert shape_images(images) == images
    assert shape_images(images, batch="first") == images[:1]
    assert shape_images(images, batch=2) == images[2:]
    [together] = shape_images(images, batch="grid")
    assert together.tobytes() == grid(images, gap=2).tobytes()


@pytest.mark.parametrize(
    ("batch", "error", "said"),
    [
        ("some", ValueError, "batch must be 'all', 'first', 'grid' or an index, not 'some'"),
        (-1, ValueError, "batch must be at least 0"),
        (1.0, TypeError, "batch must be an int"),
        (True, TypeError, "batch must be an int"),
        (3, IndexError, "batch=3: there is no such picture among 3"),
    ],
)
def test_bad_batch(batch: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        shape_images([picture(seed) for seed in range(3)], batch=batch)
    if error is not IndexError:
        with pytest.raises(error, match=said):
            check_batch(batch)


@pytest.mark.parametrize(
    ("size", "error"),
    [
        (0, ValueError),
        ((8, 0), ValueError),
        ((8, 8, 8), TypeError),
        (8.0, TypeError),
        ((8, 8.0), TypeError),
        ("64", TypeError),
        (True, TypeError),
    ],
)
def test_bad_size(size: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        check_size(size)
    with pytest.raises(error):
        shape_images([picture(0)], size)


@given(width=st.integers(1, 40), height=st.integers(1, 40), size=st.integers(1, 80))
def test_longest_side(width: int, height: int, size: int) -> None:
    [shaped] = shape_images([picture(0, (width, height))], size)
    assert max(shaped.size) == size
    expected = max(1.0, min(width, height) * size / max(width, height))
    assert abs(min(shaped.size) - expected) <= 0.5


def test_exact_size_and_no_size() -> None:
    image = picture(0, (9, 5))
    assert shape_images([image], (30, 7))[0].size == (30, 7)
    assert shape_images([image], [30, 7])[0].size == (30, 7)  # type: ignore[arg-type]
    assert shape_images([image])[0] is image
    assert shape_images([image], 9)[0] is image


def test_enlarged_pictures_are_smooth() -> None:
    halves = Image.fromarray(np.repeat([[[0] * 3, [255] * 3]], 2, axis=0).astype(np.uint8))
    [large] = shape_images([halves], 64)
    row = np.asarray(large)[32, :, 0].astype(int)
    assert (row[0], row[-1]) == (0, 255)
    assert np.abs(np.diff(row)).max() < 40


def test_reduced_pictures_are_averages() -> None:
    checkers = np.indices((64, 64)).sum(axis=0) % 2 * 255
    image = Image.fromarray(np.repeat(checkers[..., None], 3, axis=2).astype(np.uint8))
    [small] = shape_images([image], 8)
    assert np.abs(np.asarray(small).astype(int) - 127).max() <= 10


@given(
    sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12),
    columns=st.none() | st.integers(1, 15),
    gap=st.integers(0, 3),
)
def test_grid(sizes: list[tuple[int, int]], columns: int | None, gap: int) -> None:
    images = [picture(index, size) for index, size in enumerate(sizes)]
    whole = grid(images, columns, gap=gap)
    across = min(len(images), columns or math.ceil(math.sqrt(len(images))))
    down = math.ceil(len(images) / across)
    width, height = max(size[0] for size in sizes), max(size[1] for size in sizes)
    assert whole.size == (across * (width + gap) - gap, down * (height + gap) - gap)
    for index, image in enumerate(images):
        left, top = index % across * (width + gap), index // across * (height + gap)
        cell = whole.crop((left, top, left + image.width, top + image.height))
        assert cell.tobytes() == image.tobytes()


def test_bad_grid() -> None:
    with pytest.raises(ValueError, match="at least one picture"):
        grid([])
    with pytest.raises(ValueError, match="columns must be at least 1"):
        grid([picture(0)], 0)
    with pytest.raises(ValueError, match="gap must be at least 0"):
        grid([picture(0)], gap=-1)


# --- Throttle --------------------------------------------------------------------------------


@given(every=st.integers(1, 12), total=st.integers(1, 40))
def test_throttle_by_steps(every: int, total: int) -> None:
    throttle = Throttle(every)
    shown = [step for step in range(total) if throttle.shows(step, total)]
    assert shown == sorted({*range(0, total, every), total - 1})


@given(
    waits=st.lists(st.integers(0, 5), min_size=1, max_size=40),
    every=st.integers(1, 4),
    interval=st.sampled_from([1, 2, 4, 8]),
)
def test_throttle_by_time(waits: list[int], every: int, interval: int) -> None:
    now, total = 100, len(waits)
    throttle = Throttle(every, max_fps=1 / interval, clock=lambda: float(now))
    shown: dict[int, int] = {}
    for step, wait in enumerate(waits):
        now += wait
        due = step % every == 0 and (not shown or now - max(shown.values()) >= interval)
        assert throttle.shows(step, total) == (due or step + 1 == total)
        if due or step + 1 == total:
            shown[step] = now
    throttle.reset()
    assert throttle.shows(0, total)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"every": 0}, ValueError, "every must be at least 1, not 0"),
        ({"every": 1.5}, TypeError, "every must be an int"),
        ({"max_fps": 0}, ValueError, "max_fps must be above 0"),
        ({"max_fps": -1}, ValueError, "max_fps"),
        ({"max_fps": math.inf}, ValueError, "max_fps"),
        ({"max_fps": "10"}, TypeError, "max_fps must be a number"),
    ],
)
def test_bad_throttle(arguments: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        Throttle(**arguments)


# --- Background ------------------------------------------------------------------------------


def test_background_hands_over_everything_in_order_in_one_thread_of_its_own() -> None:
    sink = Blocked(None)
    background = Background(sink, maxsize=50)
    before = threading.active_count()
    for run in range(3):
        background.close()  # nothing to close
        assert threading.active_count() == before
        for step in range(20):
            background(frame(step))
        background.close()
        assert threading.active_count() == before
        assert sink.steps[21 * run :] == [*range(20), "closed"]
    assert threading.get_ident() not in sink.threads


def test_background_takes_what_as_sink_takes(tmp_path: Path) -> None:
    frames: list[PreviewFrame] = []
    for to in (frames, frames.append, tmp_path / "{step}.png"):
        show(Background(to), 2)
    assert [frame.step for frame in frames] == [0, 1, 0, 1]
    assert files(tmp_path) == ["0.png", "1.png"]


@pytest.mark.parametrize("maxsize", [1, 3])
def test_background_drops_the_oldest(maxsize: int) -> None:
    sink = Blocked(at=0)
    background = Background(sink, maxsize=maxsize, flush_timeout=LONG)
    background(frame(0))
    assert sink.reached.wait(LONG)
    for step in range(1, 8):
        background(frame(step))
    sink.release.set()
    background.close()
    assert sink.steps == [0, *range(8 - maxsize, 8), "closed"]


@given(maxsize=st.integers(1, 6), blocked=st.integers(0, 9), total=st.integers(10, 20))
def test_background_drops_only_the_oldest(maxsize: int, blocked: int, total: int) -> None:
    sink = Blocked(at=blocked)
    background = Background(sink, maxsize=maxsize, flush_timeout=LONG)
    for step in range(total):
        background(frame(step))
        if step == blocked:
            assert sink.reached.wait(LONG)
    sink.release.set()
    background.close()
    late = [step for step in sink.steps[:-1] if step > blocked]
    assert late == list(range(max(blocked + 1, total - maxsize), total))
    assert sink.steps == [*sorted(sink.steps[:-1]), "closed"]


@pytest.mark.parametrize("how", [{"at": 0}, {"at": None, "at_close": True}])
def test_blocked_sink_is_given_up_with_one_warning(how: dict[str, Any]) -> None:
    sink = Blocked(**how)
    background = Background(sink, flush_timeout=0.01)
    background(frame(0))
    assert sink.called.wait(LONG)
    with pytest.warns(RuntimeWarning, match=r"still busy after 0\.01 s, with . more") as caught:
        background.close()
    background.close()
    assert len(caught) == 1
    sink.release.set()
    assert sink.closed.wait(LONG)  # late, but closed
    assert sink.steps == [0, "closed"]


def test_run_after_a_blocked_one_waits_for_its_turn_and_starts_clean() -> None:
    sink = Blocked(at=0)
    background = Background(sink, flush_timeout=0.01)
    background(frame(0))
    background(frame(1))
    assert sink.reached.wait(LONG)
    with pytest.warns(RuntimeWarning, match="with 1 more waiting"):
        background.close()
    # A second run, as long as the sink is stuck: it is not called by a second thread.
    background(frame(5))
    with pytest.warns(RuntimeWarning, match="given up"):
        background.close()
    # A third, in which it comes back.
    background._flush_timeout = LONG
    background(frame(6))
    sink.release.set()
    background(frame(7))
    background.close()
    assert sink.steps == [0, "closed", 6, 7, "closed"]


def test_sink_stuck_for_good_holds_one_thread_however_many_runs_follow() -> None:
    sink = Blocked(at=0)
    background = Background(sink, flush_timeout=0.01)
    before = set(threading.enumerate())
    background(frame(0))
    assert sink.reached.wait(LONG)
    for _ in range(5):
        with pytest.warns(RuntimeWarning, match="given up"):
            background.close()
        background(frame(1))
    with pytest.warns(RuntimeWarning, match="given up"):
        background.close()
    ours = set(threading.enumerate()) - before
    for thread in ours:
        thread.join(0.0 if thread.ident in sink.threads else LONG)
    assert [thread.ident for thread in ours if thread.is_alive()] == list(sink.threads)
    assert all(thread.daemon for thread in ours)
    sink.release.set()


def fail_at(step: int, calls: list[int]) -> Callable[[PreviewFrame], None]:
    def sink(frame: PreviewFrame) -> None:
        calls.append(frame.step)
        if frame.step == step:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return sink


def test_failing_sink_is_told_once_in_the_callers_thread_and_off_for_its_run() -> None:
    calls: list[int] = []
    background = Background(fail_at(1, calls), flush_timeout=LONG)
    for _ in range(2):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            background(frame(0))
            background(frame(1))
            assert background._worker is not None
            background._worker._thread.join(LONG)  # it ends by itself
            assert caught == []  # no warning comes from there
            background(frame(2))
            assert len(caught) == 1
            background(frame(3))
            background.close()
        [said] = [str(each.message) for each in caught]
        assert re.fullmatch(
            r"previews are off for the rest of this run: the sink fail_at.<locals>.sink failed at "
            r"step 1: OSError: \[Errno 28\] No space left on device "
            r"\(.*test_sinks.py, line \d+, in sink: raise OSError\(errno.ENOSPC, .*\)\)",
            said,
        )
        assert caught[0].category is RuntimeWarning
        assert caught[0].filename == __file__
    assert calls == [0, 1, 0, 1]


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
def test_whatever_a_sink_raises_is_told_at_close(error: BaseException) -> None:
    def sink(_: PreviewFrame) -> None:
        raise error

    background = Background(sink, flush_timeout=LONG)
    with pytest.warns(RuntimeWarning, match=type(error).__name__) as caught:
        show(background, 1)
    assert len(caught) == 1


class FailingToClose:
    def __call__(self, frame: PreviewFrame) -> None:
        if frame.step == 1:
            raise ValueError("first")

    def close(self) -> None:
        raise ValueError("second")


@pytest.mark.parametrize(("steps", "said"), [(1, "second"), (2, "first")])
def test_sink_that_fails_to_close_is_told_once(steps: int, said: str) -> None:
    background = Background(FailingToClose(), flush_timeout=LONG)
    with pytest.warns(RuntimeWarning, match=f"ValueError: {said}") as caught:
        show(background, steps)
    assert len(caught) == 1


def test_sink_that_fails_and_then_blocks_is_told_once() -> None:
    class Both(Blocked):
        def __call__(self, frame: PreviewFrame) -> None:
            raise ValueError("first")

    sink = Both(None, at_close=True)
    background = Background(sink, flush_timeout=0.01)
    background(frame(0))
    assert sink.reached.wait(LONG)
    with pytest.warns(RuntimeWarning, match="ValueError: first") as caught:
        background.close()
    assert len(caught) == 1
    sink.release.set()


def test_warning_as_an_error_leaves_the_background_usable() -> None:
    calls: list[int] = []
    background = Background(fail_at(0, calls), flush_timeout=LONG)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        background(frame(0))
        with pytest.raises(RuntimeWarning, match="No space left"):
            background.close()
        background(frame(1))
        background.close()
    assert calls == [0, 1]


def test_failure_keeps_no_frame_alive() -> None:
    class Kept(PreviewFrame):
        pass

    background = Background(fail_at(0, []), flush_timeout=LONG)
    background(Kept(**vars(frame(0))))
    with pytest.warns(RuntimeWarning):
        background.close()
    gc.collect()
    assert not [each for each in gc.get_objects() if isinstance(each, Kept)]


def test_closing_in_the_sinks_own_thread_does_not_wait_for_itself() -> None:
    done = threading.Event()

    def sink(_: PreviewFrame) -> None:
        background.close()
        done.set()

    background = Background(sink, flush_timeout=LONG)
    background(frame(0))
    assert done.wait(LONG)


def test_context_variables_reach_the_sink() -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")
    seen: list[str] = []
    background = Background(lambda _: seen.append(name.get()), flush_timeout=LONG)
    name.set("me")
    show(background, 2)
    assert seen == ["me", "me"]


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"maxsize": 0}, ValueError, "maxsize must be at least 1"),
        ({"maxsize": 2.0}, TypeError, "maxsize must be an int"),
        ({"flush_timeout": -1}, ValueError, "flush_timeout"),
        ({"flush_timeout": math.inf}, ValueError, "flush_timeout"),
        ({"flush_timeout": None}, TypeError, "flush_timeout must be a number"),
        ({"sink": 3}, TypeError, "path template or a callable"),
    ],
)
def test_bad_background(arguments: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        Background(**{"sink": print, **arguments})


# --- on a pipeline ---------------------------------------------------------------------------


def test_sinks_of_a_run(pipe: ToyPipeline, tmp_path: Path) -> None:
    plain = pipe(["x", "y"], num_inference_steps=6)
    callbacks = bind(
        pipe,
        Preview(Background(Animation(tmp_path / "run.webp"), flush_timeout=LONG)),
        Preview(ContactSheet(tmp_path / "run.png")),
        Preview(Background(tmp_path / "{step}.png", flush_timeout=LONG), every=5),
    )
    for _ in range(2):
        out = pipe(["x", "y"], num_inference_steps=6, **callbacks)
        assert (out == plain).all()
        # Pillow may make one frame of two that are alike.
        assert sum(durations(tmp_path / "run.webp")) == 5 * 100 + 1000
    assert files(tmp_path) == ["0-0.png", "0-1.png", "5-0.png", "5-1.png", "run.png", "run.webp"]


# --- the page --------------------------------------------------------------------------------


def test_examples_of_the_page(
    pipe: ToyPipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = (Path(__file__).parent.parent / "docs" / "previews.md").read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"pipe": pipe}
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) > 10
    for language, text in blocks:
        if language == "python":
            capsys.readouterr()
            exec(compile(text, "docs/previews.md", "exec"), names)
        else:
            assert capsys.readouterr().out == text
    assert {"run.webp", "run.png", "steps/000.png", "steps/009.png"} <= set(files(tmp_path))


@given(
    hnp.arrays(
        np.uint8,
        st.tuples(st.integers(1, 40), st.sampled_from([1, 7, 2000]), st.just(3)),
        fill=st.just(7),
    )
)
@settings(deadline=None, derandomize=True, database=None, max_examples=60)
def test_png_files_are_what_others_read(pixels: np.ndarray[Any, Any]) -> None:
    file = io.BytesIO()
    write_png(Image.fromarray(pixels), file)
    file.seek(0)
    read = Image.open(file)
    assert (read.format, read.mode, read.info) == ("PNG", "RGB", {})
    assert np.array_equal(np.asarray(read), pixels)
    file.seek(0)
    Image.open(file).verify()  # the checksums
