"""examples/ray_serve.py by its own command line, with a callback that notes each step in a file."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

import ray_serve

from unicb import Callback, CFGCutoff, Step


class Note(Callback):
    """Adds a byte to a file at each step's end. It is pickled to each of the replicas."""

    def __init__(self, path: str) -> None:
        self.path = path

    def on_step_end(self, step: Step) -> None:
        with Path(self.path).open("ab") as file:
            file.write(b".")


if __name__ == "__main__":
    path, *arguments = sys.argv[1:]
    ray_serve.main(arguments, [CFGCutoff(0.8), Note(path)])
