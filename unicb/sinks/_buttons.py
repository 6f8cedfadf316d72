"""Show a Stop and a Discard button below a notebook's display."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

from unicb.sinks._clicks import Clicks
from unicb.sinks.sink import Wish

_LABELS: dict[Wish, tuple[str, str, str]] = {
    "interrupt": ("Stop", "stop", "Finish after this step, with the picture so far"),
    "cancel": ("Discard", "trash", "End after this step, without a picture"),
}


def widgets() -> Any:
    """Return the package ipywidgets.

    Raises:
        ModuleNotFoundError: ipywidgets is not installed.
    """
    try:
        return importlib.import_module("ipywidgets")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Notebook(stop=True) needs ipywidgets, which is not installed: "
            "pip install 'unicb[notebook]'"
        ) from error


class Buttons:
    """Two buttons below a piece of HTML, as one widget.

    Args:
        kernel: the running ipykernel kernel.

    Attributes:
        widget: the widget to display.
        wish: the button that was clicked first, as a wish of the run's; None before.
        blocked: why clicks are handled only after the cell; None if they are noticed at once.
    """

    def __init__(self, kernel: Any) -> None:
        made = widgets()
        self.wish: Wish | None = None
        self.blocked: str | None = None
        self._html = made.HTML()
        self._buttons: dict[Wish, Any] = {}
        for wish, (label, icon, tooltip) in _LABELS.items():
            # No fixed width, so that both buttons fit on a phone.
            layout = made.Layout(width="auto")
            button = made.Button(description=label, icon=icon, tooltip=tooltip, layout=layout)
            button.on_click(partial(self._handled, wish))
            self._buttons[wish] = button
        self._row = made.HBox(list(self._buttons.values()))
        self.widget = made.VBox([self._html, self._row])
        clicked = {b.model_id: partial(self._click, wish) for wish, b in self._buttons.items()}
        self._is_closed, self._unhandled = False, False
        self._clicks: Clicks | None = None
        try:
            self._clicks = Clicks(kernel, clicked)
        except AttributeError:
            self.blocked = "in this kernel, the buttons work with await unicb.run_async(...)"

    def show(self, html: str) -> None:
        self._html.value = html

    def poll(self) -> None:
        """Look for clicks that have come in."""
        if self._clicks is not None and self.wish is None:
            self._clicks.poll()

    def close(self) -> None:
        """Take the widgets away."""
        self._is_closed = True
        if self._clicks is not None:
            self._clicks.close()
        if not self._unhandled:  # otherwise the kernel still has a click to handle for the button
            self._close_widgets()

    def _click(self, wish: Wish) -> None:
        """Note a click that the kernel has still to handle."""
        self._unhandled = True
        self._note(wish)

    def _handled(self, wish: Wish, button: Any) -> None:
        self._unhandled = False
        if self._is_closed:
            self._close_widgets()
        else:
            self._note(wish)

    def _note(self, wish: Wish) -> None:
        if self.wish is None:
            self.wish = wish
            self._buttons[wish].description = "Stopping…"
            for button in self._buttons.values():
                button.disabled = True

    def _close_widgets(self) -> None:
        for widget in (self.widget, self._row, self._html, *self._buttons.values()):
            for part in (widget, widget.layout, getattr(widget, "style", None)):
                if part is not None:
                    part.close()
