"""Measure how long a pipeline takes from its last step to its return, which is mostly decoding."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable

from unicb.run.handle import Handle
from unicb.run.loop import Loop, Outputs


class Decoding:
    """Measure how long one call takes after its last step, and report that to the handle.

    Args:
        handle: the binding's handle.
        call: the number of the call.
        returned: a bound method, not kept alive, for a call that somebody else makes, so that
            nobody calls :meth:`stop`: called when that call has returned. None for a call that
            unicb makes.
    """

    def __init__(self, handle: Handle, call: int, returned: Callable[[], None] | None) -> None:
        self._handle, self._call = handle, call
        self._returned = None if returned is None else weakref.WeakMethod(returned)
        self._began: float | None = None
        self._watched: weakref.ref[Outputs] | None = None

    def timed(self, outputs: Outputs, loop: Loop) -> Outputs:
        """Start the clock: the last step of the loop has ended, and gets these. Returns them."""
        self._began = time.monotonic()
        if self._returned is not None:
            self._watch(outputs, loop, self._began, self._returned)
        return outputs

    def _watch(
        self,
        outputs: Outputs,
        loop: Loop,
        began: float,
        returned: weakref.WeakMethod[Callable[[], None]],
    ) -> None:
        """Stop the clock when ``outputs`` is collected: nothing else shows that the call returns,
        and the frame that holds ``outputs`` ends with the call."""
        handle, call = self._handle, self._call

        def died(_: object) -> None:
            handle.decoded_since(began, call)
            if (tell := returned()) is not None and not loop.is_executing():
                tell()

        self._watched = weakref.ref(outputs, died)

    def stop(self, failed: bool) -> None:
        """Stop the clock: the call has returned, or has failed."""
        if self._began is not None and not failed:
            self._handle.decoded_since(self._began, self._call)
        self._began = self._watched = None
