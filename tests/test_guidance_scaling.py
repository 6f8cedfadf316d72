"""What is moved in a denoiser's answer to guide with another scale, and what is not."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from one_call import Denoiser, Running, first, rows

from unicb import UnsupportedPipelineError
from unicb.guidance import Scaling, scaling
from unicb.pipelines import PipelineFacts
from unicb_numpy import backend
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline

LOCAL = "guidance_scale"


class Output(NamedTuple):
    sample: Any
    extra: Any = None


class HasScales(ToyPipeline):
    def loop(self, schedule: Any, cfg: Any) -> None:
        """These are names of locals that a loop of this class may have."""


def scaled(
    scale: float | None, batch: int = 1, shape: Any = (), run: Running | None = None, **facts: Any
) -> tuple[Denoiser, Scaling]:
    """Guidance of ``scale`` on a pipeline with such facts, and its denoiser."""
    given = {"denoisers": ("unet",), "guidance_scale": "local", **facts}
    about = PipelineFacts(source="this test", **given)
    pipe = type("Pipeline", (HasScales,), {"unicb_facts": about})()
    pipe.unet = denoiser = Denoiser()
    run = run or Running(**{LOCAL: 5.0})
    latents = StrictTensor(np.zeros(shape or (batch, 4, 8, 8)))
    run.made = made = scaling(backend, pipe, about, latents, run)
    made.set(scale)
    return denoiser, made


def guided(values: list[float], g: float = 5.0) -> float:
    u, c = values
    return u + g * (c - u)


@pytest.mark.parametrize("scale", [0.0, 2.0, 8.0])
def test_the_loop_makes_of_it_what_the_scale_would(scale: float) -> None:
    denoiser, _ = scaled(scale)
    denoiser.answers = [rows(3, 7)]
    u, c = first(denoiser.forward(rows(0, 0)))
    assert c == 7
    assert guided([u, c]) == pytest.approx(guided([3, 7], scale))


@pytest.mark.parametrize("scale", [None, 5.0])
def test_nothing_is_touched_at_the_loops_own_scale(scale: float | None) -> None:
    denoiser, _ = scaled(scale)
    denoiser.answers = [out := Output(rows(3, 7))]
    assert denoiser.forward(rows(0, 0)) is out


def test_from_the_conditional_part() -> None:
    denoiser, _ = scaled(
        2.0, combination="from_conditional", order=("conditional", "unconditional")
    )
    denoiser.answers = [rows(7, 3)]
    c, u = first(denoiser.forward(rows(0, 0)))
    assert c == 7
    assert c + 5.0 * (c - u) == pytest.approx(7 + 2.0 * (7 - 3))


def test_the_output_keeps_its_type_and_what_has_no_rows() -> None:
    denoiser, _ = scaled(2.0, batch=2)
    extra = [rows(1, 2, 3), StrictTensor(np.array([1, 2, 3, 4])), "text"]
    denoiser.answers = [Output(rows(0, 1, 8, 9), extra)]
    out = denoiser.forward(rows(0, 0, 0, 0))
    assert isinstance(out, Output)
    assert first(out.sample)[2:] == [8, 9]
    assert guided(first(out.sample)[::2]) == pytest.approx(guided([0, 8], 2.0))
    assert out.extra[0] is extra[0]
    assert out.extra[1].data.tolist() == [1, 2, 3, 4]  # whole numbers are no prediction
    assert out.extra[2] == "text"


def test_perturbed_rows_stay() -> None:
    denoiser, _ = scaled(2.0, order=("unconditional", "conditional", "perturbed"))
    denoiser.answers = [rows(3, 7, 4)]
    u, c, p = first(denoiser.forward(rows(0, 0, 0)))
    assert (c, p) == (7, 4)
    assert guided([u, c]) == pytest.approx(guided([3, 7], 2.0))


def test_a_listed_batch() -> None:
    denoiser, _ = scaled(2.0, batch=2, listed=True, order=("conditional", "unconditional"))
    items = [StrictTensor(np.full((4, 3), float(i))) for i in (8, 9, 0, 1)]
    denoiser.answers = [{"sample": items}]
    out = denoiser.forward([1, 2, 3, 4])["sample"]
    assert out[:2] == items[:2]
    for c, u, before in zip(items[:2], out[2:], (0, 1), strict=True):
        made = guided([float(u.data.flat[0]), float(c.data.flat[0])])
        assert made == pytest.approx(guided([before, float(c.data.flat[0])], 2.0))


def test_frames_among_the_rows() -> None:
    denoiser, _ = scaled(2.0, shape=(1, 4, 3, 8, 8), frames_axis=2)
    denoiser.answers = [rows(0, 1, 2, 7, 8, 9)]
    sample = StrictTensor(np.zeros((6, 4, 8, 8)))
    out = first(denoiser.forward(sample))
    assert out[3:] == [7, 8, 9]
    assert guided([out[1], out[4]]) == pytest.approx(guided([1, 8], 2.0))


def test_a_step_without_guidance_passes() -> None:
    """But for the first, which tells whether there is any."""
    run = Running(**{LOCAL: 5.0})
    denoiser, _ = scaled(2.0, run=run)
    run.index = 0
    denoiser.answers = [out := rows(3)]
    assert denoiser.forward(rows(0)) is out
    run.index = -1
    with pytest.raises(UnsupportedPipelineError, match="called with guidance off"):
        denoiser.forward(rows(0))


def test_three_parts() -> None:
    order = ("conditional", "unconditional", "unconditional")
    denoiser, _ = scaled(2.0, order=order, least_blocks=2)
    denoiser.answers = [rows(7, 3), rows(7, 3, 4)]
    denoiser.forward(rows(0, 0))
    with pytest.raises(UnsupportedPipelineError, match="called its unet with 3 parts"):
        denoiser.forward(rows(0, 0, 0))
    assert "forward" not in vars(denoiser)


def test_rows_that_do_not_add_up() -> None:
    denoiser, _ = scaled(2.0)
    with pytest.raises(
        UnsupportedPipelineError, match=r"cannot set guidance on Pipeline: .* 3 rows"
    ):
        denoiser.forward(rows(0, 0, 0))


def test_a_call_that_fills_a_cache_passes() -> None:
    for cfg in ("batch", "calls"):
        denoiser, _ = scaled(2.0, cfg=cfg, fills="mode=extract")
        denoiser.answers = [rows(7, 3), rows(3, 3), rows(1, 1)]
        assert first(denoiser.forward(rows(0, 0), mode="extract")) == [7, 3]
        if cfg == "batch":
            assert first(denoiser.forward(rows(0, 0), mode="cached")) == [3, 3]


# ------------------------------------------------------------------------------------ several calls


def test_several_calls() -> None:
    denoiser, made = scaled(2.0, cfg="calls")
    for _ in range(2):
        denoiser.answers = [Output(rows(7)), Output(rows(3))]
        c, u = (first(denoiser.forward(rows(0)).sample)[0] for _ in range(2))
        assert c == 7
        assert guided([u, c]) == pytest.approx(guided([3, 7], 2.0))
        made.step_end()


def test_answers_of_other_lengths() -> None:
    """Of tokens of text and picture, where the loop takes the picture's: the last ones."""
    tokens = [StrictTensor(np.arange(float(n)).reshape(1, n, 1)) for n in (4, 6)]
    denoiser, _ = scaled(2.0, cfg="calls", tail=True)
    denoiser.answers = [tokens[0], tokens[1]]
    denoiser.forward(tokens[0])
    moved = denoiser.forward(tokens[1])
    # The last three are 1 2 3 with the prompt, and 3 4 5 without.
    wanted = [c + (u - c) * 0.25 for c, u in zip((1, 2, 3), (3, 4, 5), strict=True)]
    assert moved.data[0, -3:, 0].tolist() == pytest.approx(wanted)
    strict, _ = scaled(2.0, cfg="calls")
    strict.answers = [tokens[0], tokens[1]]
    strict.forward(tokens[0])
    with pytest.raises(UnsupportedPipelineError, match=r"shape \(1, 6, 1\), where .* \(1, 4, 1\)"):
        strict.forward(tokens[1])


def test_answers_of_other_numbers() -> None:
    denoiser, _ = scaled(2.0, cfg="calls")
    denoiser.answers = [(rows(1), rows(2)), (rows(1),)]
    denoiser.forward(rows(0))
    with pytest.raises(UnsupportedPipelineError, match=r"with 1 tensors, where .* had 2"):
        denoiser.forward(rows(0))


def test_a_first_step_of_one_call() -> None:
    denoiser, made = scaled(2.0, cfg="calls")
    denoiser.answers = [rows(7)]
    denoiser.forward(rows(0))
    with pytest.raises(UnsupportedPipelineError, match="above 1 and a negative_prompt"):
        made.step_end()


# --------------------------------------------------------------------------------- the loop's scale


@pytest.mark.parametrize("own", [[5.0, 3.0], (5.0, 3.0), np.array([5.0, 3.0])])
def test_a_sequence_has_one_for_each_step(own: Any) -> None:
    run = Running(schedule=own)
    denoiser, _ = scaled(2.0, run=run, scale_names=("schedule",))
    for index, scale in enumerate((5.0, 3.0)):
        run.index = index - 1
        denoiser.answers = [rows(3, 7)]
        assert guided(first(denoiser.forward(rows(0, 0))), scale) == pytest.approx(11)


def test_the_first_name_that_there_is_counts() -> None:
    run = Running(guidance_scale=3.0)
    denoiser, _ = scaled(2.0, run=run, scale_names=("current_guidance_scale", "guidance_scale"))
    denoiser.answers = [rows(3, 7), rows(3, 7)]
    assert guided(first(denoiser.forward(rows(0, 0))), 3.0) == pytest.approx(11)
    run.values["current_guidance_scale"] = 9.0
    assert guided(first(denoiser.forward(rows(0, 0))), 9.0) == pytest.approx(11)


def test_no_scale_by_that_name() -> None:
    denoiser, _ = scaled(2.0, run=Running(), scale_names=("cfg",))
    with pytest.raises(UnsupportedPipelineError, match="no scale called cfg"):
        denoiser.forward(rows(0, 0))


def test_a_scale_by_which_the_unconditional_part_counts_for_nothing() -> None:
    """Of a class that guides whatever its scale."""
    run = Running(guidance_scale=1.0)
    denoiser, _ = scaled(2.0, run=run, guided_above=float("-inf"))
    with pytest.raises(UnsupportedPipelineError, match=r"guidance_scale is 1\); call it with"):
        denoiser.forward(rows(0, 0))


def test_scales_that_follow() -> None:
    """Of sound beside the picture: where it was the same, it stays the same."""
    for own, after in ((5.0, 2.0), (9.0, 9.0)):
        about = PipelineFacts("here", ("unet",), scale_follows=("_audio_guidance_scale",))
        pipe = type("Pipeline", (ToyPipeline,), {"unicb_facts": about})()
        pipe._guidance_scale, pipe._audio_guidance_scale = 5.0, own
        made = scaling(backend, pipe, about, None, Running())
        made.set(2.0)
        assert (pipe._guidance_scale, pipe._audio_guidance_scale) == (2.0, after)
        made.remove()
        made.remove()
        assert (pipe._guidance_scale, pipe._audio_guidance_scale) == (5.0, own)


def test_guidance_of_the_sound_alone_is_guidance() -> None:
    about = PipelineFacts("here", ("unet",), scale_follows=("_audio_guidance_scale",))

    class Pipeline(ToyPipeline):
        unicb_facts = about

        @property
        def do_classifier_free_guidance(self) -> bool:
            return self._guidance_scale > 1 or self._audio_guidance_scale > 1

    pipe = Pipeline()
    pipe._guidance_scale, pipe._audio_guidance_scale = 1.0, 9.0  # type: ignore[attr-defined]
    made = scaling(backend, pipe, about, None, Running())
    assert not made.is_off(1.0)
    pipe._audio_guidance_scale = 1.0  # type: ignore[attr-defined]
    with pytest.raises(UnsupportedPipelineError, match="called with guidance off"):
        scaling(backend, pipe, about, None, Running())
