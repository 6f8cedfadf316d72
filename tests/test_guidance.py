"""The denoiser switch: which tensors are cut, and which are not, however lucky their length."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from unicb.guidance import Cut
from unicb.guidance import cut as cut_guidance
from unicb.pipelines import facts_for
from unicb_numpy import backend
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline


class Output(NamedTuple):
    sample: StrictTensor
    extra: list[StrictTensor]


class Recorder:
    """A denoiser that notes what it is called with, and answers in a named tuple."""

    def __init__(self) -> None:
        self.args: tuple[Any, ...] = ()
        self.kwargs: dict[str, Any] = {}

    def forward(self, *args: Any, **kwargs: Any) -> Output:
        self.args, self.kwargs = args, kwargs
        return Output(args[0], [args[0] + 1])


def cut(batch: int) -> tuple[Recorder, Cut]:
    pipe = ToyPipeline()
    pipe.unet = recorder = Recorder()  # type: ignore[assignment]
    latents = StrictTensor(np.zeros((batch, 4, 8, 8)))
    made = cut_guidance(backend, pipe, facts_for(pipe), latents, lambda: True)
    assert made is not None
    return recorder, made


def rows(*values: float) -> StrictTensor:
    return StrictTensor(np.array(values)[:, None] * np.ones(3))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(batch=st.integers(1, 4), length=st.integers(1, 9))
def test_cuts_doubled_tensors_only(batch: int, length: int) -> None:
    """Nested containers are searched; a tensor is cut if it has the doubled rows, to the last."""
    recorder, _ = cut(batch)
    doubled = rows(*range(2 * batch))
    sequence = StrictTensor(np.zeros((batch, length)))  # rows, but not doubled ones
    timestep = StrictTensor(np.array(7.0))
    recorder.forward(
        doubled,
        timestep,
        encoder_hidden_states=doubled,
        added={"image_embeds": [doubled, sequence], "scale": 0.5},
        keep=None,
    )
    conditional = list(range(batch, 2 * batch))
    assert recorder.args[0].data[:, 0].tolist() == conditional
    assert recorder.args[1] is timestep
    assert recorder.kwargs["encoder_hidden_states"].data[:, 0].tolist() == conditional
    assert recorder.kwargs["added"]["image_embeds"][0].data[:, 0].tolist() == conditional
    assert recorder.kwargs["added"]["image_embeds"][1] is sequence
    assert recorder.kwargs["added"]["scale"] == 0.5
    assert recorder.kwargs["keep"] is None


def test_output_is_repeated_in_its_own_type() -> None:
    recorder, _ = cut(batch=2)
    out = recorder.forward(rows(0, 1, 2, 3))
    assert isinstance(out, Output)
    assert out.sample.data[:, 0].tolist() == [2, 3, 2, 3]
    assert out.extra[0].data[:, 0].tolist() == [3, 4, 3, 4]


def test_remove_is_idempotent_and_complete() -> None:
    recorder, switch = cut(batch=1)
    switch.remove()
    switch.remove()
    recorder.forward(rows(0, 1))
    assert recorder.args[0].shape[0] == 2
    assert "forward" not in vars(recorder)
