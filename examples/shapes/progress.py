"""A progress bar, and a compact log with a line every hundred steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

EVERY = 100


class Log:
    """Appends lines to a text file, and shows them above the progress bar."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def line(self, text: str) -> None:
        self._file.write(text + "\n")
        self._file.flush()
        tqdm.write(text)


class Stage:
    """One stage of training: iterate over its steps, and report each step's loss."""

    def __init__(self, name: str, steps: int, log: Log) -> None:
        self._name, self._steps, self._log = name, steps, log
        self._losses: list[float] = []
        self._began = time.monotonic()

    def __iter__(self) -> Iterator[int]:
        with tqdm(range(self._steps), desc=self._name, mininterval=5) as bar:
            for step in bar:
                yield step
                if (step + 1) % EVERY == 0 or step + 1 == self._steps:
                    bar.set_postfix(loss=f"{self._write(step + 1):.4f}")

    def report(self, loss: float) -> None:
        self._losses.append(loss)

    def _write(self, step: int) -> float:
        mean = sum(self._losses) / len(self._losses)
        self._losses.clear()
        seconds = time.monotonic() - self._began
        self._log.line(f"{self._name:<8} step {step:5d}  loss {mean:.5f}  {seconds:6.0f} s")
        return mean
