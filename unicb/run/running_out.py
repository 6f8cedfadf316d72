"""Stop a loop whose run is over for its callbacks, or let it run out."""

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
    """Stop a loop: by its interrupt flag, or where it reads none, by making the rest of it do
    nothing.

    Attributes:
        interrupted: whether no further step is to be computed.

    Args:
        target: whose loop it is.
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
        """Look on from the first step's end, where a stop would need it."""
        target = self._target
        if target.modular is not None or stops_by_flag(target.pipeline) or not target.models:
            return
        try:
            self._replay = Replay(target.pipeline, target.models, self._owner)
        except UnsupportedPipelineError:
            return  # a model that cannot be hooked: whoever asks for a stop is told so
        self._owner.on_finish(self._replay.remove)

    @property
    def is_on(self) -> bool:
        """Return whether the run was stopped, and its loop goes on all the same."""
        return self._stopped_with is not None

    def stop(self, outputs: Mapping[str, Tensor]) -> None:
        """Stop the run at a step's end, with these handed back. There is nothing to do where the
        loop ends by its flag."""
        if self._target.modular is not None:
            self._stopped_with = dict(outputs)  # its steps are left out
        if self._replay is not None:
            self._stopped_with = dict(outputs)
            self._replay.stopped = True

    def outputs(self, tensors: Mapping[str, Tensor]) -> Outputs:
        """Return what goes back into the loop at a further step's end: the tensors stay what they
        were."""
        assert self._stopped_with is not None
        for name, tensor in tensors.items():
            # A loop may go on to another resolution: its own are of the size that it expects.
            shapes = [getattr(x, "shape", None) for x in (tensor, self._stopped_with.get(name))]
            if shapes[0] != shapes[1]:
                self._stopped_with[name] = tensor
        return Outputs({name: self._stopped_with[name] for name in tensors})

    def forget(self) -> None:
        """Forget what is kept: the run is over."""
        self._stopped_with = None
