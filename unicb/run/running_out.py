"""Stop a loop by its interrupt flag, or let it run to its end without computing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from unicb.errors import UnsupportedPipelineError
from unicb.ops import Tensor
from unicb.pipelines.stoppable import stops_by_flag
from unicb.run.loop import Outputs
from unicb.run.stopping import Replay

if TYPE_CHECKING:
    from unicb.pipelines.target import Target
    from unicb.run.run import Run


class RunningOut:
    """Stop a loop: by its interrupt flag; or, if it reads none, by making its remaining steps
    compute nothing.

    Attributes:
        interrupted: True if no further step is to be computed.

    Args:
        target: the pipeline of the loop.
        owner: the run.
    """

    def __init__(self, target: Target, owner: Run) -> None:
        self.interrupted = False
        self._target, self._owner = target, owner
        self._replay: Replay | None = None
        self._stopped_with: dict[str, Tensor] | None = None

    def interrupt(self) -> None:
        """Have no further step computed.

        Raises:
            UnsupportedPipelineError: the loop cannot be stopped.
        """
        if stops_by_flag(self._target.pipeline):
            self._target.pipeline._interrupt = True
        else:
            self._target.check_interruptible()
        self.interrupted = True

    def watch(self) -> None:
        """Start to record the models' outputs at the first step's end, if a stop would need
        them."""
        target = self._target
        if target.modular is not None or stops_by_flag(target.pipeline) or not target.models:
            return
        try:
            self._replay = Replay(target.pipeline, target.models, self._owner)
        except UnsupportedPipelineError:
            return  # a model cannot be hooked: a request to stop raises an error that says so
        self._owner.on_finish(self._replay.remove)

    @property
    def is_on(self) -> bool:
        """Return whether the run was stopped and its loop still goes on."""
        return self._stopped_with is not None

    def stop(self, outputs: Mapping[str, Tensor]) -> None:
        """Stop the run at a step's end, at which the loop got back ``outputs``. Nothing is to be
        done for a loop that reads the flag."""
        if self._target.modular is not None:
            self._stopped_with = dict(outputs)  # what further steps hand back unchanged
        if self._replay is not None:
            self._stopped_with = dict(outputs)
            self._replay.stopped = True

    def outputs(self, tensors: Mapping[str, Tensor]) -> Outputs:
        """Return what goes back into the loop at the end of a further step: the tensors of the
        stop."""
        assert self._stopped_with is not None
        for name, tensor in tensors.items():
            # A loop may have gone on to another resolution, and needs its own tensors of that size.
            shapes = [getattr(x, "shape", None) for x in (tensor, self._stopped_with.get(name))]
            if shapes[0] != shapes[1]:
                self._stopped_with[name] = tensor
        return Outputs({name: self._stopped_with[name] for name in tensors})

    def forget(self) -> None:
        """Forget all tensors: the run is over."""
        self._stopped_with = None
