"""Notice clicks on buttons in a notebook while the kernel executes a cell.

A kernel handles one message after another, and a click is a message, which waits while a cell runs.
But messages are received during the cell: in a thread of their own (ipykernel 7), or on request
(ipykernel 6). There a click is noticed when it arrives; the message is still handled after the
cell.

Subshells do not help, because comms are routed to the shell that opened them (ipykernel 7.4); and
jupyter-ui-poll 1.1, which handles messages in a blocking cell, works on ipykernel 6 only.
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
    """Notice clicks until closed.

    Args:
        kernel: the running ipykernel kernel.
        clicked: for each button, by the id of its model, the function to call at a click, in any
            thread.

    Raises:
        AttributeError: the kernel is of another kind, which receives its messages differently.
    """

    def __init__(self, kernel: Any, clicked: Mapping[str, Callable[[], None]]) -> None:
        self._session, self._stream, self._clicked = kernel.session, kernel.shell_stream, clicked
        # The stream's own setter may only be called in the stream's thread.
        self._below: Callable[[Any], Any] = self._stream._recv_callback
        self._stream._recv_callback = self._received
        self._is_polled = getattr(kernel, "shell_channel_thread", None) is None
        self._polled_at = 0.0

    def poll(self) -> None:
        """Receive waiting messages on kernels that receive in the main thread only, without
        handling them. Call this in the middle of a cell."""
        now = time.monotonic()
        is_main = threading.current_thread() is threading.main_thread()
        if self._is_polled and is_main and now - self._polled_at >= _POLL_SECONDS:
            self._polled_at = now
            self._stream.flush(importlib.import_module("zmq").POLLIN)

    def close(self) -> None:
        self._clicked = {}
        if self._stream._recv_callback == self._received:  # unless somebody replaced it since
            self._stream._recv_callback = self._below

    def _received(self, parts: Any) -> Any:
        if self._clicked:
            try:
                self._look(parts)
            except Exception as error:  # a message that cannot be read is the kernel's to refuse
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
