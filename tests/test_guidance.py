"""The denoiser switch: which tensors are cut, and which are not, however lucky their length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_call import Running, first, rows

from unicb import CFGCutoff, UnsupportedPipelineError, bind
from unicb.guidance import Cut
from unicb.guidance import cut as cut_guidance
from unicb.pipelines import PipelineFacts, facts_for
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
        self.answer: Callable[[Output], Any] = lambda out: out

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.args, self.kwargs = args, kwargs
        sample = next(iter((*args, *kwargs.values())))
        return self.answer(Output(sample, [sample + 1] if not isinstance(sample, list) else []))


def cut(batch: int, frames: int = 0, **facts: Any) -> tuple[Recorder, Cut]:
    """Guidance cut on a pipeline with such facts, and the denoiser that it is cut on."""
    about = PipelineFacts(source="this test", **{"denoisers": ("unet",), **facts})
    pipe = type("Pipeline", (ToyPipeline,), {"unicb_facts": about})()
    pipe.unet = recorder = Recorder()
    shape = (batch, 4, frames, 8, 8) if frames else (batch, 4, 8, 8)
    run = Running()
    made = cut_guidance(backend, pipe, facts_for(pipe), StrictTensor(np.zeros(shape)), run)
    assert made is not None
    run.made = made
    return recorder, made


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


def test_conditional_rows_first() -> None:
    recorder, _ = cut(batch=2, order=("conditional", "unconditional"))
    out = recorder.forward(rows(0, 1, 2, 3))
    assert first(recorder.args[0]) == [0, 1]
    assert first(out.sample) == [0, 1, 0, 1]


def test_conditional_rows_between() -> None:
    order = ("unconditional", "conditional", "unconditional")
    recorder, _ = cut(batch=1, order=order)
    assert first(recorder.forward(rows(0, 1, 2)).sample) == [1, 1, 1]
    assert first(recorder.args[0]) == [1]


def test_blocks_that_only_some_runs_have() -> None:
    order = ("conditional", "unconditional", "unconditional")
    recorder, _ = cut(batch=2, order=order, least_blocks=2)
    for blocks in (3, 2):
        out = recorder.forward(rows(*range(2 * blocks)))
        assert first(recorder.args[0]) == [0, 1]
        assert first(out.sample) == [0, 1] * blocks
    # As many rows as the latents have: guidance is off.
    assert first(recorder.forward(rows(0, 1)).sample) == [0, 1]


@pytest.mark.parametrize("found", [1, 3, 5, 8])
def test_rows_that_do_not_add_up(found: int) -> None:
    recorder, _ = cut(batch=2)
    with pytest.raises(UnsupportedPipelineError, match=f"with {found} rows, .* should give 4"):
        recorder.forward(rows(*range(found)))
    assert "forward" not in vars(recorder)


def test_answer_with_other_rows() -> None:
    recorder, _ = cut(batch=2)
    recorder.answer = lambda out: Output(rows(0, 1, 2), [])
    with pytest.raises(UnsupportedPipelineError, match="called with 2 rows, answered with 3"):
        recorder.forward(rows(0, 1, 2, 3))


def test_arguments_without_rows_are_left_alone() -> None:
    """Position ids and rotary tables, of a length that looks like rows."""
    recorder, _ = cut(batch=2, unbatched=("txt_ids", "rotary"))
    ids, table = rows(0, 1, 2, 3), rows(5, 6, 7, 8)
    recorder.forward(hidden_states=rows(0, 1, 2, 3), txt_ids=ids, rotary=(table, table))
    assert recorder.kwargs["txt_ids"] is ids
    assert recorder.kwargs["rotary"][0] is table
    assert first(recorder.kwargs["hidden_states"]) == [2, 3]


def test_rows_on_another_axis() -> None:
    recorder, _ = cut(batch=1, axes={"layers": 1})
    layers = StrictTensor(np.arange(8.0).reshape(2, 2, 2))  # as many layers as rows
    recorder.forward(rows(0, 1), layers=layers)
    assert recorder.kwargs["layers"].data.tolist() == [[[2, 3]], [[6, 7]]]


def test_dict_by_row() -> None:
    recorder, _ = cut(batch=2, by_row=("sizes",))
    recorder.forward(rows(0, 1, 2, 3), sizes={0: "a", 2: "b", 3: "c"})
    assert recorder.kwargs["sizes"] == {0: "b", 1: "c"}


def test_listed_batch() -> None:
    """A batch that is a list of rows: its items have no axis of rows, whatever their shape."""
    recorder, _ = cut(batch=2, listed=True)
    items = [StrictTensor(np.full((4, 3), float(i))) for i in range(4)]
    recorder.answer = lambda out: {"sample": list(recorder.args[0])}
    out = recorder.forward(items, rows(0, 1, 2, 3), {"by layer": {7: rows(0, 1, 2, 3)}})
    assert recorder.args[0] == items[2:]
    assert first(recorder.args[1]) == [2, 3]
    assert first(recorder.args[2]["by layer"][7]) == [2, 3]
    assert out["sample"] == items[2:] * 2


def test_frames_among_the_rows() -> None:
    """Three frames of one picture: embeddings are repeated for each, or not."""
    recorder, _ = cut(batch=1, frames=3, frames_axis=2)
    video = StrictTensor(np.arange(2.0).reshape(2, 1, 1, 1, 1) * np.ones((2, 4, 3, 8, 8)))
    recorder.forward(video, embeds=rows(*range(6)), pooled=rows(0, 1), other=rows(0, 1, 2))
    assert first(recorder.args[0]) == [1]
    assert first(recorder.kwargs["embeds"]) == [3, 4, 5]
    assert first(recorder.kwargs["pooled"]) == [1]
    assert first(recorder.kwargs["other"]) == [0, 1, 2]


@pytest.mark.parametrize("frames", [2, 3, 4])
def test_model_that_is_called_frame_by_frame(frames: int) -> None:
    """In guess mode its rows are the frames of the conditional part alone: with two frames, as
    many as two blocks have."""
    recorder, _ = cut(batch=1, frames=frames, frames_axis=2)
    picture = np.ones((1, 4, 8, 8))
    guided = StrictTensor(np.arange(2.0 * frames).reshape(-1, 1, 1, 1) * picture)
    recorder.forward(guided)
    assert first(recorder.args[0]) == list(range(frames, 2 * frames))
    recorder.forward(guided[:frames])
    assert first(recorder.args[0]) == list(range(frames))


def test_calls_are_answered_by_the_conditional_one() -> None:
    recorder, made = cut(batch=1, cfg="calls")
    for _ in range(2):
        conditional = recorder.forward(rows(1))
        assert recorder.forward(rows(0)) is conditional
        assert first(recorder.args[0]) == [1]
        made.step_end()


def test_step_with_one_call_is_not_guided() -> None:
    recorder, made = cut(batch=1, cfg="calls")
    for value in (1, 2):
        assert first(recorder.forward(rows(value)).sample) == [value]
        made.step_end()


def test_more_calls_than_guidance_takes() -> None:
    recorder, _ = cut(batch=1, cfg="calls")
    recorder.forward(rows(1))
    recorder.forward(rows(0))
    with pytest.raises(UnsupportedPipelineError, match="called its unet 3 times"):
        recorder.forward(rows(2))
    assert "forward" not in vars(recorder)


def test_tail_of_the_conditional_call() -> None:
    """A second call on the image tokens alone: they are the end of the first call's."""
    recorder, made = cut(batch=1, cfg="calls", tail=True)
    tokens = StrictTensor(np.arange(5.0).reshape(1, 5, 1))
    recorder.forward(tokens)
    assert recorder.forward(tokens[:, :2]).sample.data.tolist() == [[[3], [4]]]
    made.step_end()
    strict, _ = cut(batch=1, cfg="calls")
    strict.forward(tokens)
    with pytest.raises(UnsupportedPipelineError, match=r"\(1, 2, 1\), where .* \(1, 5, 1\)"):
        strict.forward(tokens[:, :2])


@pytest.mark.parametrize(
    "order",
    [
        ("unconditional",),
        ("conditional", "conditional"),
        ("conditional", "unconditional", "perturbed"),
    ],
)
def test_order_that_cannot_be_cut(order: Any) -> None:
    with pytest.raises(ValueError, match="one conditional part"):
        PipelineFacts(source="this test", order=order)


def test_bind_forgets_nothing_that_a_run_under_way_may_need(
    pipe: ToyPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    rehearsed: list[bool] = []
    monkeypatch.setattr(
        type(backend),
        "reset_caches",
        lambda self, module, *, rehearse=False: rehearsed.append(rehearse),
    )
    callbacks = bind(pipe, CFGCutoff(0.4))
    assert rehearsed == [True]
    pipe("x", **callbacks)
    assert rehearsed == [True, False, False]  # at the cut, and at the end
