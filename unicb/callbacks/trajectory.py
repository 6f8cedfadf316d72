"""Record the latents of a run, step by step, in a file."""

from __future__ import annotations

import os
import queue
import string
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from unicb.callback import Callback
from unicb.callbacks._numbers import Numbers
from unicb.callbacks._ranks import written_by_other_rank
from unicb.callbacks._trajectory_files import (
    SUFFIXES,
    RecordedLatents,
    TrajectoryFile,
    load_trajectory,
)
from unicb.checks import whole_number
from unicb.ops import Tensor, TensorOps
from unicb.step import Step, timestep_number

if TYPE_CHECKING:
    from unicb import Run, Target

__all__ = ["RecordedLatents", "Trajectory", "load_trajectory"]

#: How many steps may wait for the disk; with more, the run waits.
_WAITING = 8


class _Recorded(NamedTuple):
    step: int
    num_timesteps: int
    sigma: float
    dtype: str
    result: Callable[[], tuple[npt.NDArray[Any], float]]


class Trajectory(Callback):
    """Write a run's latents to a file, step by step, for plots, debugging, or comparing runs.

    A thread of its own copies the latents to the host and writes them, so that they are not kept in
    memory. If the disk is more than eight steps behind, the run waits: no step is left out. The
    complete file appears under its name when the run is over, with the steps recorded so far,
    however the run ended. Until then the latents are in a temporary file beside it; for a moment,
    both files exist.

    Read it with :func:`load_trajectory`. Both formats hold the arrays of :class:`RecordedLatents`
    under their names, for ``numpy.load`` or ``safetensors.numpy.load_file``.

    If writing fails (because the disk is full), a warning says so, and the run goes on.

    Args:
        to: a path that ends in .npz or .safetensors. Each run overwrites the file of the run
            before, unless the path has the field ``{run}``, which counts this object's runs from 0.
            If several processes share a run, only the first writes; with the field ``{rank}``, each
            writes its own file.
        every: record steps 0, ``every``, ``2 * every``, …, and the last step.

    Raises:
        TypeError, ValueError: ``to`` is no such path, or has an unknown field; ``every`` is no int
            from 1.
        OSError: from ``bind``: the folder cannot be made or written to.
        UnsupportedPipelineError: from ``bind``: the pipeline offers no latents.

    Example:
        >>> image = bind(pipe, Trajectory("run.npz"))("a red star", num_inference_steps=4)[0]
        >>> load_trajectory("run.npz").latents.shape
        (4, 1, 4, 8, 8)
    """

    tensors = ("latents",)
    _of_one_rank = ("_template", "_count")

    def __init__(self, to: str | os.PathLike[str], every: int = 1) -> None:
        self._template = _template(to)
        self._every = whole_number("every", every)
        self._count = Numbers()

    def on_bind(self, target: Target) -> None:
        # Begin and end an empty file, which leaves nothing behind: errors of the folder show now.
        path = self._path(0, target.backend.rank()[0])
        if path.is_dir():
            raise IsADirectoryError(f"Trajectory cannot write {str(path)!r}: it is a folder")
        TrajectoryFile(path).close()

    def on_run_end(self, run: Run) -> None:
        if (recording := run.state(self, _Recordings).begun) is not None:
            recording.finish(run)

    def on_step_end(self, step: Step) -> None:
        kept = step.run.state(self, _Recordings)
        if not kept.asked:
            kept.asked, kept.begun = True, self._begun(step.run)
        recording = kept.begun
        if recording is None:
            return
        last = step.index + 1 == step.num_timesteps
        if step.index % self._every == 0 or last:
            recording.record(step)

    def _begun(self, run: Run) -> _Recording | None:
        """Return the recording of this run; None if another process writes it."""
        if not (run.is_first_rank or "{rank" in self._template):
            return None
        if (other := written_by_other_rank(run, self._template)) is not None:
            warnings.warn(
                f"the trajectory of this run is not written: {other}", RuntimeWarning, stacklevel=5
            )
            return None
        return _Recording(self._path(next(self._count), run.rank))

    def _path(self, run: int, rank: int) -> Path:
        return Path(self._template.format(run=run, rank=rank))


def _template(to: Any) -> str:
    if not isinstance(to, str | os.PathLike):
        raise TypeError(f"Trajectory takes a path, not a {type(to).__qualname__}")
    template = os.fsdecode(to)
    try:
        path = Path(template.format(run=0, rank=0))
        named = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise ValueError(
            f"path {template!r} cannot be filled in ({error}); its fields may be {{run}} and "
            "{rank}"
        ) from error
    if path.suffix.lower() not in SUFFIXES or named - {"run", "rank"}:
        raise ValueError(f"Trajectory writes {' and '.join(SUFFIXES)}, not {template!r}")
    return template


@dataclass
class _Recordings:
    """Hold the recording of one run: None before its first step has ended, or if another process
    writes it."""

    asked: bool = False
    begun: _Recording | None = None


class _Recording:
    """A recording is one run's file, and the thread that writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # A SimpleQueue's put never waits and is reentrant, so the garbage collector may call it any
        # time.
        self._queue: queue.SimpleQueue[_Recorded | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(_WAITING)
        self._error = ""
        self._warned = False
        self._sigmas: tuple[Any, npt.NDArray[np.float64]] | None = None
        self._thread = threading.Thread(target=self._work, name="unicb-trajectory", daemon=True)
        self._thread.start()

    def record(self, step: Step) -> None:
        self._tell(step.run)
        if not self._error:
            self._room.acquire()
            dtype = str(step["latents"].dtype).rpartition(".")[2].lower()
            sigma, result = self._sigma(step), _aside(step)
            self._queue.put(_Recorded(step.index, step.num_timesteps, sigma, dtype, result))

    def finish(self, run: Run) -> None:
        self._queue.put(None)
        # The garbage collector may notice the end of a run, in any thread.
        if self._thread is not threading.current_thread():
            self._thread.join()
            self._tell(run)

    def _tell(self, run: Run) -> None:
        if self._error and not self._warned:
            self._warned = True
            where = f"is not written to {str(self._path)!r} any further"
            message = f"the trajectory of this run {where}: {self._error}"
            run.warned(message)
            warnings.warn(message, RuntimeWarning, stacklevel=5)

    def _work(self) -> None:
        file: TrajectoryFile | None = None
        # Empty the queue to its end, whatever happens: the run may be waiting for room in it.
        while (recorded := self._queue.get()) is not None:
            try:
                if self._error:
                    continue
                file = file or TrajectoryFile(self._path)
                latents, timestep = recorded.result()
                file.append(
                    recorded.step,
                    recorded.num_timesteps,
                    timestep,
                    recorded.sigma,
                    # Some backends widen half-precision numbers when they copy to the host.
                    latents.astype(np.float16) if recorded.dtype == "float16" else latents,
                )
            except BaseException as error:
                self._error = _text(error)
            finally:
                del recorded  # it keeps tensors alive on the device
                self._room.release()
        try:
            if file is not None:
                file.close()
        except BaseException as error:
            self._error = self._error or _text(error)

    def _sigma(self, step: Step) -> float:
        """Return the noise level of the latents after the step.

        The scheduler has already increased its own step index by then. With order 2, both its index
        and its sigmas count half steps.
        """
        scheduler = getattr(step.pipeline, "scheduler", None)
        sigmas = getattr(scheduler, "sigmas", None)
        if sigmas is None:
            return float("nan")
        if self._sigmas is None or self._sigmas[0] is not sigmas:
            host = step.ops.to_numpy(sigmas) if step.run.is_tensor(sigmas) else sigmas
            self._sigmas = sigmas, np.asarray(host, dtype=np.float64).reshape(-1)
        read = self._sigmas[1]
        index = getattr(scheduler, "step_index", None)
        if index is None and len(read) == step.num_timesteps + 1:
            index = step.index + 1
        return float(read[index]) if index is not None and index < len(read) else float("nan")


def _text(error: BaseException) -> str:
    """Return the error's text, to keep instead of the error, whose traceback would keep the latents
    alive."""
    return f"{type(error).__name__}: {error}"


def _aside(step: Step) -> Callable[[], tuple[npt.NDArray[Any], float]]:
    timestep = step.raw_timestep
    rest = (timestep,) if step.run.is_tensor(timestep) else ()

    def work(ops: TensorOps, latents: Tensor, *more: Tensor) -> tuple[npt.NDArray[Any], float]:
        return ops.to_numpy(latents), timestep_number(more[0] if more else timestep, ops)

    return step.aside(work, step["latents"], *rest)
