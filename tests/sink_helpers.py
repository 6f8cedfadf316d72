"""Frames, pictures and sinks for the tests of sinks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unicb.sinks import PreviewFrame

LONG = 60.0  # seconds that only a broken test waits for


def picture(seed: int, size: tuple[int, int] = (8, 8)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise)


def frame(step: int, total: int = 10, batch: int = 1) -> PreviewFrame:
    images = [picture(100 * step + index) for index in range(batch)]
    return PreviewFrame(step, total, 1000.0 - step, images)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(LONG)
        assert not thread.is_alive()


def show(sink: Any, steps: int = 3, batch: int = 1) -> None:
    for step in range(steps):
        sink(frame(step, steps, batch))
    sink.close()


class Blocked:
    """A sink that blocks in the step it is told to, or in ``close``, until it is released."""

    def __init__(self, at: int | None = 0, *, at_close: bool = False) -> None:
        self.at, self.at_close = at, at_close
        self.called, self.reached, self.release = (threading.Event() for _ in range(3))
        self.steps: list[Any] = []
        self.threads: set[int] = set()
        self.closed = threading.Event()

    def __call__(self, frame: PreviewFrame) -> None:
        self.threads.add(threading.get_ident())
        self.steps.append(frame.step)
        self.called.set()
        if frame.step == self.at:
            self.block()

    def close(self) -> None:
        self.threads.add(threading.get_ident())
        self.steps.append("closed")
        if self.at_close:
            self.block()
        self.closed.set()

    def block(self) -> None:
        self.reached.set()
        assert self.release.wait(LONG)


def durations(path: Path) -> list[int]:
    image, found = Image.open(path), []
    for index in range(image.n_frames):
        image.seek(index)
        image.load()
        found.append(int(image.info["duration"]))
    return found
