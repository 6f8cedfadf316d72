"""Notice the end of a step in a modular pipeline by ``loop_step`` of its loop blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from sys import _getframe
from types import FrameType
from typing import Any, cast

from unicb.pipelines.modular import INDEX, LOOP_STEP, ModularLoops
from unicb.run.asked import Bound
from unicb.run.call import Call
from unicb.run.handle import Handle
from unicb.run.holds import Hold, hold, unheld
from unicb.run.loop import FrameId, id_of, loop_locals
from unicb.run.rounds import rounds_of
from unicb.run.scope import Scope, innermost
from unicb.run.through_blocks import or_through_blocks

#: Name of a loop block's local variable with the state of the whole pipeline.
_PIPELINE_STATE = "state"


class BlockStep:
    """``BlockStep`` is one step of a loop block.

    Attributes:
        state: the block's state, which its inner blocks change.
        frame_id: the id of the frame of the block's loop.
        num_timesteps: number of steps that the loop takes.
    """

    def __init__(self, frame_id: FrameId, num_timesteps: int) -> None:
        self.state: Any = None
        self.frame_id, self.num_timesteps = frame_id, num_timesteps

    def is_of(self, frame: FrameType) -> bool:
        """Return whether the block's loop runs in this frame."""
        return self.frame_id.number == id(frame) and self.frame_id.code is frame.f_code

    def values(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the block's values of these names: from its state, else its local variables, else
        the state of the whole pipeline."""
        found = {name: value for name in names if (value := _read(self.state, name)) is not None}
        missing = [name for name in names if name not in found]
        if missing:
            around = loop_locals(self.frame_id, [*missing, _PIPELINE_STATE])
            whole = around.get(_PIPELINE_STATE)
            for name in missing:
                value = around.get(name, _read(whole, name))
                if value is not None:
                    found[name] = value
        return found


class LoopStepSource:
    """A step ends when a loop block's ``loop_step`` returns: callbacks get the tensors in the
    block's state, and the loop goes on with what they return.

    Args:
        bound: the pipeline, with unicb's facts about it, and the callbacks.
        loops: the pipeline's loops.
        call: called at each step's end.
        handle: the binding's handle.
        scope: the scope of the call; steps in other scopes are ignored.
        names: names of the tensors that callbacks get.
    """

    def __init__(
        self,
        bound: Bound,
        loops: ModularLoops,
        call: Call,
        handle: Handle,
        scope: Scope,
        names: Sequence[str],
    ) -> None:
        self._bound, self._loops, self._names = bound, loops, names
        self._target = bound.target
        self._call, self._handle, self._scope = call, handle, scope
        self._holds: list[Hold] = []
        #: True if something has to be done before a loop's first step.
        self._is_awaited = False

    def start(self) -> dict[str, Any]:
        self._loops.check_unchanged(self._target.pipeline)
        self._is_awaited = self._bound.awaits_first_step
        for block in self._loops.loops:
            self._holds.append(hold(block, LOOP_STEP, partial(self._step, block), self))
        return {}

    def stop(self, failed: bool) -> None:
        while self._holds:
            self._holds.pop().release()
        self._target.block_step = None

    def owns_current_call(self) -> bool:
        """Return whether the caller is the pipeline's call, and not a callback in it."""
        run = self._handle.run
        in_callback = run is not None and run.calls_back
        return not in_callback and innermost() is self._scope

    def _step(self, block: Any, components: Any, state: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Replace ``block.loop_step`` in the loop's calls."""
        below = unheld(block, LOOP_STEP)  # the block's own, not this run's replacement
        pipeline = self._target.pipeline
        if components is not pipeline:
            return cast(tuple[Any, Any], below(components, state, **kwargs))
        index = kwargs[INDEX]
        step, frame = self._target.block_step, _getframe(1)
        if step is None or index == 0 or not step.is_of(frame):
            step = self._begin(frame)
        step.state = state
        if self._call.runs_out:
            return components, state
        if self._is_awaited:
            or_through_blocks(self._call.loop_begins)
        components, state = below(components, state, **kwargs)
        step.state = state
        del kwargs[INDEX]
        timestep = next(iter(kwargs.values()), None)
        handed = {}
        for name in self._names:
            handed[name] = getattr(state, name, None)
        outputs = or_through_blocks(self._call, pipeline, index, timestep, handed)
        for name, value in outputs.items():
            if value is not handed.get(name):
                _write(state, name, handed.get(name), value)
        return components, state

    def _begin(self, frame: FrameType) -> BlockStep:
        """Begin the first step of a loop, and count the loop's rounds once."""
        step = self._target.block_step = BlockStep(id_of(frame), rounds_of(frame))
        return step


def _read(state: Any, name: str) -> Any:
    return getattr(state, name, None)


def _write(state: Any, name: str, before: Any, value: Any) -> None:
    """Replace the value of this name in the state, and in the groups inside the state."""
    set_value = getattr(state, "set", None)
    if callable(set_value):
        set_value(name, value)
    else:
        setattr(state, name, value)
    for group in _groups(vars(state)) if before is not None else ():
        if group.get(name) is before:
            group[name] = value


def _groups(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the dicts inside these values, recursively: a state has its tensors a second time in
    such groups."""
    for value in values.values():
        if isinstance(value, dict):
            yield value
            yield from _groups(value)
