"""Show previews in a notebook, in one display that is updated in place."""

from __future__ import annotations

import copy
import importlib
import time
from collections.abc import Sequence
from typing import Any, Self

from PIL import Image

from unicb import jupyter
from unicb.checks import flag, number_within
from unicb.errors import UnicbError
from unicb.pace import Pace, words
from unicb.sinks._buttons import Buttons, widgets
from unicb.sinks._html import gallery
from unicb.sinks.frame import PreviewFrame
from unicb.sinks.shape import Batch, Size, check_batch, check_size, shape_images, shape_videos
from unicb.sinks.sink import Wish

#: A notebook's server drops output above 1 MB per second.
_BYTES_PER_SECOND = 400_000
_LEAST_SECONDS = 0.05

FORMS = (
    'a path template, Preview("steps/{step:03d}.png"); a function, Preview(function); or a list '
    "to collect in, Preview(a_list)"
)
_ENDED = {
    "finished": "finished: {count} steps",
    "interrupted": "stopped after step {done}/{count}",
    "cancelled": "discarded after step {done}/{count}",
    "failed": "failed after step {done}/{count}",
}


class Notebook:
    """Shows a run's previews in the output of its cell: pictures or playing videos, with the step
    and the remaining time. In Jupyter, ``Preview()`` uses this sink.

    A run has one display, updated in place at most 20 times a second, and no more often than a
    notebook's server allows. After the run, it says how the run ended, and is plain HTML, so that
    it is still there when the notebook is opened again. The pipeline's own progress bar is hidden.

    ■ (interrupt the kernel) finishes the run with the picture so far, as with
    ``bind(..., on_sigint="interrupt")``; once more in the same cell, it raises KeyboardInterrupt.

    Args:
        stop: True: show a Stop and a Discard button. They work while the cell runs, and act at the
            end of the step: Stop finishes with the picture so far, Discard raises
            :class:`unicb.GenerationCancelled`. This needs the package ipywidgets.
        size: size of each picture on the screen in CSS pixels: of the longer side, or (width,
            height). None: the picture's own size, but at least 256 for one picture and 128 for
            several.
        batch: which pictures to show, as for :func:`shape_images`.
        fps: latent frames per second of a video, 0.1..50.

    Raises:
        UnicbError: this is no Jupyter kernel.
        ModuleNotFoundError: ``stop`` is True, and ipywidgets is not installed.
        TypeError, ValueError: an argument is of the wrong type, or out of range.
    """

    #: A Preview with this sink takes this over; see :attr:`unicb.Callback.on_sigint`.
    on_sigint = "interrupt"
    hides_progress_bar = True
    #: A Preview's default for ``frames`` with this sink.
    video_frames = "animation"

    def __init__(
        self,
        *,
        stop: bool = False,
        size: Size | None = None,
        batch: Batch = "all",
        fps: float = 8.0,
    ) -> None:
        if jupyter.shell() is None:
            raise UnicbError(
                f"previews cannot be shown here, which is no Jupyter kernel: give Preview {FORMS}"
            )
        self._stop = flag("stop", stop)
        if stop:
            widgets()
        self._size, self._batch = check_size(size), check_batch(batch)
        self._milliseconds = round(1000.0 / number_within("fps", fps, 0.1, 50.0))
        self._begin()

    def _begin(self) -> None:
        self._pace = Pace()
        self._newest: PreviewFrame | None = None
        self._due_at = 0.0
        self._ended: tuple[str, int] | None = None
        self._display: Any = None
        self._buttons: Buttons | None = None

    @property
    def asks(self) -> bool:
        """Return whether there are buttons to end a run early."""
        return self._stop

    def for_run(self) -> Self:
        """Return a sink for one of several runs, with a display of its own."""
        other = copy.copy(self)
        other._begin()
        return other

    def __call__(self, frame: PreviewFrame) -> None:
        now = time.monotonic()
        self._newest = frame
        self._pace.add(frame.step, now)
        if self._stop and self._display is None:
            self._buttons = Buttons(getattr(jupyter.shell(), "kernel", None))
        if now >= self._due_at:
            shown = self._show(frame, self._caption(frame))
            self._due_at = now + max(_LEAST_SECONDS, shown / _BYTES_PER_SECOND)

    def asked(self) -> Wish | None:
        """Return what the buttons ask of the run; to be called at the end of each step, in the
        run's thread."""
        buttons = self._buttons
        if buttons is None:
            return None
        buttons.poll()
        return buttons.wish

    def ended(self, outcome: str, done: int) -> None:
        """Note how the run has ended, and after how many steps; to be called before
        :meth:`close`."""
        self._ended = outcome, done

    def close(self) -> None:
        """Show how the run has ended, without buttons."""
        frame, buttons = self._newest, self._buttons
        outcome, done = self._ended or ("finished", 0 if frame is None else frame.step + 1)
        self._buttons = None
        try:
            if frame is not None and self._display is not None:
                text = _ENDED[outcome].format(done=done, count=frame.num_timesteps)
                pace = self._pace.seconds_per_step
                self._show(frame, text if pace is None else f"{text}, {pace:.3g} s a step")
        finally:
            self._begin()
            if buttons is not None:
                buttons.close()

    def _caption(self, frame: PreviewFrame) -> str:
        pace, remaining = self._pace.seconds_per_step, self._pace.remaining(frame.num_timesteps)
        text = words(frame.step, frame.num_timesteps, pace, remaining)
        blocked = None if self._buttons is None else self._buttons.blocked
        return text if blocked is None else f"{text} ({blocked})"

    def _show(self, frame: PreviewFrame, text: str) -> int:
        """Show a frame; return the length of its HTML in characters."""
        shown: Sequence[Image.Image | Sequence[Image.Image]]
        if frame.videos:
            shown = shape_videos(frame.videos, batch=self._batch)
        else:
            shown = shape_images(frame.images, batch=self._batch)
        html = gallery(shown, text, size=self._size, milliseconds=self._milliseconds)
        show = importlib.import_module("IPython.display")
        if self._buttons is not None:
            self._buttons.show(html)
            if self._display is None:
                self._display = show.display(self._buttons.widget, display_id=True)
        elif self._display is None:
            self._display = show.display(_bundle(html, text), raw=True, display_id=True)
        else:
            self._display.update(_bundle(html, text), raw=True)
        return len(html)

    def __repr__(self) -> str:
        return "Notebook(stop=True)" if self._stop else "Notebook()"


def _bundle(html: str, text: str) -> dict[str, str]:
    """Return the display data: HTML for a notebook, text for a terminal."""
    return {"text/html": html, "text/plain": text}
