"""Toy pipelines to stop: with blocks, with a hand on the step, with an unknown loop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from unicb import Callback, Step
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline, ToyUNet

WAIT = 20.0  # seconds after which a test gives up; none should take so long


class Block:
    """Passes on what it gets, and calls ``seen`` first."""

    def __init__(self, seen: Callable[[], None]) -> None:
        self._seen = seen

    def __call__(self, sample: StrictTensor) -> StrictTensor:
        return self.forward(sample)

    def forward(self, sample: StrictTensor) -> StrictTensor:
        self._seen()
        return sample


class BlockUNet(ToyUNet):
    """A denoiser of four blocks and a middle one, in the frameworks' words."""

    def __init__(self) -> None:
        self.computed: list[str] = []
        self.on_block: Callable[[str], None] = lambda name: None
        self.down_blocks = [self._block("down 0"), self._block("down 1")]
        self.mid_block = self._block("mid")
        self.up_blocks = [self._block("up 0"), self._block("up 1")]

    def _block(self, name: str) -> Block:
        def seen() -> None:
            self.computed.append(name)
            self.on_block(name)

        return Block(seen)

    @property
    def modules(self) -> list[Any]:
        return [self, *self.down_blocks, self.mid_block, *self.up_blocks]

    def forward(self, sample: StrictTensor, *args: Any, **kwargs: Any) -> StrictTensor:
        for block in (*self.down_blocks, self.mid_block, *self.up_blocks):
            sample = block(sample)
        return super().forward(sample, *args, **kwargs)


class BlockPipeline(ToyPipeline):
    """The toy with such a denoiser; its loop is the toy's own."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.unet: BlockUNet = BlockUNet()


def hooked(pipe: Any) -> list[str]:
    """What is left on a toy pipeline's models and scheduler; empty where it is as it was made."""
    modules = getattr(pipe.unet, "modules", [pipe.unet])
    left = [f"forward of {type(m).__name__}" for m in modules if "forward" in vars(m)]
    return left + ["step of the scheduler"] * ("step" in vars(pipe.scheduler))


class Hold(Callback):
    """Stops at the end of a step until it is let go; :attr:`there` is set meanwhile."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.there, self.go = threading.Event(), threading.Event()

    def on_step_end(self, step: Step) -> None:
        if step.index == self.index:
            self.there.set()
            assert self.go.wait(WAIT)


class InThread:
    """A call in a thread of its own, and what came of it."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self._call = call
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._call()
        except BaseException as error:
            self.error = error.with_traceback(None)  # a traceback keeps the loop's frame alive

    def join(self) -> None:
        self._thread.join(WAIT)
        assert not self._thread.is_alive()
