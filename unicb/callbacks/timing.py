"""Measure how long steps take, and estimate how long a run still has to go."""

from __future__ import annotations

import importlib
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from unicb.callback import Callback
from unicb.checks import flag, one_of
from unicb.pace import Pace, words
from unicb.step import Step

if TYPE_CHECKING:
    from unicb import Run


@dataclass
class StepTimes:
    """``StepTimes`` holds one run's times, in seconds.

    Attributes:
        first: from the pipeline's call to the end of its first step, including text encoders and
            whatever is compiled or loaded.
        seconds: of each further step, from the end of the step before, including callbacks. Work on
            the device is included only if the timer waits for it.
    """

    first: float = 0.0
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float | None:
        """Return the median of ``seconds``; None after only one step."""
        return statistics.median(self.seconds) if self.seconds else None

    @property
    def total(self) -> float:
        """Return the seconds from the pipeline's call to the end of the last step so far."""
        return self.first + sum(self.seconds)

    def summary(self) -> str:
        """Return the times in one line:
        ``20 steps in 4.1 s: 0.2 s a step (0.198..0.21), the first after 0.3 s``."""
        steps = len(self.seconds) + 1
        line = f"{steps} step{'s' if steps > 1 else ''} in {self.total:.3g} s"
        if self.median is None:
            return line
        low, high = min(self.seconds), max(self.seconds)
        return (
            f"{line}: {self.median:.3g} s a step ({low:.3g}..{high:.3g}), "
            f"the first after {self.first:.3g} s"
        )


@dataclass
class _Timed:
    """``_Timed`` holds one run's times, and the time at which its last step ended; None before the
    first has."""

    times: StepTimes = field(default_factory=StepTimes)
    ended: float | None = None


class StepTimer(Callback):
    """Measure each step of a run; the last run's times are in :attr:`times`.

    A device may still be working when the host ends a step. To measure the work itself, the timer
    waits for the device at each step by reading one value of the latents, so that the host cannot
    run ahead.

    Args:
        wait: True: wait for the device at each step. False: single steps may be timed too short or
            too long; the total is right once something else has waited for the device.

    Raises:
        TypeError: ``wait`` is no bool.
        UnsupportedPipelineError: from ``bind``, with ``wait``: the pipeline offers no latents.

    Attributes:
        times: the times so far of the run that began last; None before the first run.

    Example:
        >>> timer = StepTimer()
        >>> image = bind(pipe, timer)("a red star")[0]
        >>> len(timer.times.seconds)  # of each step but the first
        9
    """

    _of_one_rank = ("times",)

    def __init__(self, wait: bool = True) -> None:
        self.tensors = ("latents",) if flag("wait", wait) else ()
        self.times: StepTimes | None = None

    def summary(self) -> str:
        """Return in one line how long the last run took."""
        return "no step yet" if self.times is None else self.times.summary()

    def on_step_end(self, step: Step) -> None:
        if self.tensors:
            step.ops.to_numpy(step["latents"].reshape((-1,))[:1])
        now = time.monotonic()
        timed = step.run.state(self, _Timed)
        if timed.ended is None:
            timed.times.first = now - step.run.called_at
            self.times = timed.times
        else:
            timed.times.seconds.append(now - timed.ended)
        timed.ended = now


@dataclass(frozen=True)
class ProgressState:
    """``ProgressState`` says how far a run is at the end of a step.

    Attributes:
        step: index of the step, from 0.
        num_timesteps: number of steps of the run.
        seconds_per_step: median of the last eight steps, in seconds; None after the first step.
        elapsed: seconds since the pipeline's call.
        remaining: seconds that the remaining steps will take at that pace, without decoding; None
            after the first step.
    """

    step: int
    num_timesteps: int
    seconds_per_step: float | None
    elapsed: float
    remaining: float | None

    def __str__(self) -> str:
        return words(self.step, self.num_timesteps, self.seconds_per_step, self.remaining)


#: How to show progress: a name, or a function that is called after every step.
Display: TypeAlias = Literal["tqdm", "rich", "plain"] | Callable[[ProgressState], object]


class _Shown(Protocol):
    def update(self, state: ProgressState) -> None: ...

    def close(self) -> None: ...


class Progress(Callback):
    """Show how far a run is, how long a step takes, and how long the run will still take.

    It replaces the pipeline's own progress bar, which is hidden in calls with this callback and
    shown in others. It does not wait for the device (:class:`StepTimer` does). A display that fails
    gives one warning, and is off for the rest of the run. If several processes share a run, the
    first one shows its progress.

    Args:
        display: "tqdm", "rich", or "plain": text on stderr, in a terminal one line that is
            rewritten, elsewhere a line for each tenth of the run. Or a function that is called with
            a :class:`ProgressState` after every step. None: "tqdm" if it is installed, else
            "plain".

    Raises:
        TypeError, ValueError: ``display`` is none of these.
        ModuleNotFoundError: the package that ``display`` names is not installed.

    Example:
        >>> states = []
        >>> image = bind(pipe, Progress(states.append))("a red star")[0]
        >>> states[-1].step, states[-1].num_timesteps
        (9, 10)
    """

    hides_progress_bar = True

    def __init__(self, display: Display | None = None) -> None:
        _maker(display)  # raises if `display` is wrong
        self._display = display

    def on_run_end(self, run: Run) -> None:
        self._shown(run).close(run)

    def on_step_end(self, step: Step) -> None:
        if step.run.is_first_rank:
            self._shown(step.run).update(step, time.monotonic())

    def _shown(self, run: Run) -> _RunShown:
        return run.state(self, lambda: _RunShown(_maker(self._display)))


class _RunShown:
    """``_RunShown`` is one run's display, and measures the pace of its last steps."""

    def __init__(self, make: Callable[[int], _Shown]) -> None:
        self._make = make
        self._shown: _Shown | None = None
        self._failed = False
        self._pace = Pace()

    def update(self, step: Step, now: float) -> None:
        self._pace.add(step.index, now)
        if self._failed:
            return
        pace, remaining = self._pace.seconds_per_step, self._pace.remaining(step.num_timesteps)
        elapsed = now - step.run.called_at
        state = ProgressState(step.index, step.num_timesteps, pace, elapsed, remaining)
        try:
            if self._shown is None:
                self._shown = self._make(step.num_timesteps)
            self._shown.update(state)
        except Exception as error:
            self._fail(error, step.run)

    def close(self, run: Run) -> None:
        shown, self._shown = self._shown, None
        if shown is not None:
            try:
                shown.close()
            except Exception as error:
                self._fail(error, run)

    def _fail(self, error: Exception, run: Run) -> None:
        self._failed = True
        message = f"progress is not shown for the rest of this run: {type(error).__name__}: {error}"
        run.warned(message)
        warnings.warn(message, RuntimeWarning, stacklevel=4)


def _maker(display: Any) -> Callable[[int], _Shown]:
    if display is None:
        try:
            return _maker("tqdm")
        except ModuleNotFoundError:
            return _Plain
    if callable(display):
        return lambda total: _Told(display)
    if not isinstance(display, str):
        raise TypeError(f"display must be a name or a function, not a {type(display).__qualname__}")
    if one_of("display", display, ("tqdm", "rich", "plain"), "a function") == "plain":
        return _Plain
    name = "tqdm.auto" if display == "tqdm" else "rich.progress"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"Progress({display!r}) needs {display}, which is not installed: pip install {display}"
        ) from error
    return lambda total: (_Tqdm if display == "tqdm" else _Rich)(module, total)


class _Told:
    def __init__(self, function: Callable[[ProgressState], object]) -> None:
        self._function = function

    def update(self, state: ProgressState) -> None:
        self._function(state)

    def close(self) -> None:
        """Do nothing: nothing was opened."""


class _Tqdm:
    def __init__(self, module: Any, total: int) -> None:
        self._bar = module.tqdm(total=total, unit="step", desc="denoising")

    def update(self, state: ProgressState) -> None:
        self._bar.update(state.step + 1 - self._bar.n)

    def close(self) -> None:
        self._bar.close()


class _Rich:
    def __init__(self, module: Any, total: int) -> None:
        columns: Sequence[Any] = (
            module.TextColumn("{task.description}"),
            module.BarColumn(),
            module.MofNCompleteColumn(),
            module.TextColumn("{task.fields[pace]}"),
        )
        console = importlib.import_module("rich.console").Console(stderr=True)
        self._bar = module.Progress(*columns, console=console)
        self._task = self._bar.add_task("denoising", total=total, pace="")
        self._bar.start()

    def update(self, state: ProgressState) -> None:
        pace = str(state).partition(", ")[2]
        self._bar.update(self._task, completed=state.step + 1, pace=pace, refresh=True)

    def close(self) -> None:
        self._bar.stop()


class _Plain:
    def __init__(self, total: int) -> None:
        self._total, self._tenth, self._width = total, 0, 0

    def update(self, state: ProgressState) -> None:
        line = str(state)
        if sys.stderr.isatty():
            sys.stderr.write("\r" + line.ljust(self._width))
            self._width = len(line)
        elif (tenth := 10 * (state.step + 1) // self._total) > self._tenth:
            self._tenth = tenth
            sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def close(self) -> None:
        if self._width:
            sys.stderr.write("\n")
            sys.stderr.flush()
