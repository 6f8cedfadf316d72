"""A Jupyter kernel as far as a display needs one, in this process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class Display:
    """One output of a cell.

    Attributes:
        shown: the bundles that it has had, in order; a widget as ``{"widget": it}``.
    """

    def __init__(self) -> None:
        self.shown: list[dict[str, Any]] = []

    def update(self, thing: Any, raw: bool = False) -> None:
        self.shown.append(dict(thing) if raw else {"widget": thing})

    @property
    def texts(self) -> list[str]:
        return [str(bundle.get("text/plain")) for bundle in self.shown]


class Stream:
    """What hands over the messages that come in; here, when it is told of one."""

    def __init__(self) -> None:
        self.handled: list[Any] = []
        self.waiting: list[Any] = []
        self._recv_callback: Callable[[Any], Any] = self.handled.append

    def flush(self, flag: Any) -> None:
        while self.waiting:
            self._recv_callback(self.waiting.pop(0))


class Session:
    """Takes messages apart that are lists of one text."""

    def feed_identities(self, parts: Any, copy: bool) -> tuple[list[Any], Any]:
        return [], parts

    def deserialize(self, parts: Any, content: bool, copy: bool) -> Any:
        kind, body = json.loads(parts[0])
        return {"header": {"msg_type": kind}, "content": json.dumps(body)}

    def unpack(self, text: str) -> Any:
        return json.loads(text)


def message(kind: str, **content: Any) -> list[str]:
    return [json.dumps([kind, content])]


def click_on(button: Any) -> list[str]:
    data = {"method": "custom", "content": {"event": "click"}}
    return message("comm_msg", comm_id=button.model_id, data=data)


class Widget:
    """A widget of ipywidgets, as far as it is used."""

    def __init__(self, children: Any = (), **traits: Any) -> None:
        self.children, self.closed, self.disabled = children, False, False
        self.model_id = f"{id(self):x}"
        self.layout: Any = None
        self.value = ""
        self.handlers: list[Callable[[Any], None]] = []
        vars(self).update(traits)

    def on_click(self, handler: Callable[[Any], None]) -> None:
        self.handlers.append(handler)

    def click(self) -> None:
        """The kernel handles a click."""
        for handler in self.handlers:
            handler(self)

    def close(self) -> None:
        self.closed = True


class FakeKernel:
    """Installed as the kernel that this process is.

    Attributes:
        displays: in the order in which they appeared.
        cell: number of the cell that is executed.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **modules: Any) -> None:
        self.displays: list[Display] = []
        self.kernel = SimpleNamespace(session=Session(), shell_stream=Stream())
        self.kernel.shell_channel_thread = object()
        self.shell = SimpleNamespace(kernel=self.kernel, execution_count=1)
        ipython: Any = ModuleType("IPython")
        ipython.get_ipython = lambda: self.shell
        display: Any = ModuleType("IPython.display")
        display.display = self._display
        widgets: Any = ModuleType("ipywidgets")
        for name in ("HTML", "Button", "HBox", "VBox", "Layout"):
            setattr(widgets, name, type(name, (Widget,), {}))
        found: Mapping[str, Any] = {
            "IPython": ipython,
            "IPython.display": display,
            "ipywidgets": widgets,
            **modules,
        }
        for name, module in found.items():
            monkeypatch.setitem(sys.modules, name, module)

    @property
    def stream(self) -> Stream:
        return self.kernel.shell_stream  # type: ignore[no-any-return]

    def _display(self, thing: Any, raw: bool = False, display_id: bool = False) -> Display:
        assert display_id
        made = Display()
        made.update(thing, raw)
        self.displays.append(made)
        return made
