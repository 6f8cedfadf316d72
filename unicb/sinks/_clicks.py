"""Clicks on buttons in a notebook, noticed while the kernel executes a cell.

A kernel handles one message after another, and a click is a message: while a cell blocks, it waits.
But what receives the messages is at work, in a thread of its own (ipykernel 7), or when it is asked
to be (ipykernel 6). There, a click is seen as it comes in; the message goes on its way, and is
handled after the cell.

Comms are routed by who has sent to them (ipykernel 7.4), so subshells do not help; and what lets a
blocking cell handle messages, jupyter-ui-poll 1.1, does so on ipykernel 6 only.
"""

from __future__ import annotations

import importlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

_log = logging.getLogger("unicb")
_POLL_SECONDS = 0.05


class Clicks:
    """Notices clicks from now on, until it is closed.

    Args:
        kernel: ipykernel's.
        clicked: what to call for a click, in whatever thread, by the id of the button's model.

    Raises:
        AttributeError: the kernel is another one, and receives its messages otherwise.
    """

    def __init__(self, kernel: Any, clicked: Mapping[str, Callable[[], None]]) -> None:
        self._session, self._stream, self._clicked = kernel.session, kernel.shell_stream, clicked
        # The stream has a setter for it, which may be called in the stream's own thread only.
        self._below: Callable[[Any], Any] = self._stream._recv_callback
        self._stream._recv_callback = self._received
        self._is_polled = getattr(kernel, "shell_channel_thread", None) is None
        self._polled_at = 0.0

    def poll(self) -> None:
        """Receive what has come, on kernels that do so in the main thread only; to be called in the
        middle of a cell. Nothing is handled."""
        now = time.monotonic()
        is_main = threading.current_thread() is threading.main_thread()
        if self._is_polled and is_main and now - self._polled_at >= _POLL_SECONDS:
            self._polled_at = now
            self._stream.flush(importlib.import_module("zmq").POLLIN)

    def close(self) -> None:
        self._clicked = {}
        if self._stream._recv_callback == self._received:  # or another has come before it
            self._stream._recv_callback = self._below

    def _received(self, parts: Any) -> Any:
        if self._clicked:
            try:
                self._look(parts)
            except Exception as error:  # the message is for others to judge
                _log.debug("a message that is no click: %r", error)
        return self._below(parts)

    def _look(self, parts: Any) -> None:
        session = self._session
        _, rest = session.feed_identities(parts, copy=False)
        message = session.deserialize(rest, content=False, copy=False)
        if message["header"]["msg_type"] != "comm_msg":
            return
        content = session.unpack(message["content"])
        clicked = self._clicked.get(content["comm_id"])
        if clicked is not None and content["data"]["content"]["event"] == "click":
            clicked()
