"""GuidanceInterval and GuidanceSchedule beside compiling, caches, offloading; what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import guidance_runs
import numpy as np
import pytest
import torch
import ways
from PIL import Image
from scripts import run_script
from test_composes import call_of, error, rows_seen, traces
from test_composes_caches import CACHES, SHARED
from test_composes_compile import Tracer, in_place, unet, wrapped
from test_composes_memory import model_offload
from test_composes_pipelines import STEPS, ltx, wan

from unicb import CFGCutoff, GuidanceInterval, GuidanceSchedule, Interrupt, bind
from unicb.testing import Case
from unicb_torch.harness import harness
from zoo.entry import Request

NAME = "torch"
ROOT = Path(__file__).parents[3]


def test_every_way_is_there() -> None:
    assert guidance_runs.ways_left_out(NAME, guidance_runs.chosen(NAME)) == set()


@pytest.mark.parametrize("title", guidance_runs.chosen(NAME, guidance_runs.REFUSED))
def test_what_is_refused(title: str) -> None:
    found = guidance_runs.outcome(NAME, title)
    assert found.interval is not None
    assert found.schedule is not None
    assert found.interval.verdict == "exact"
    assert found.schedule.verdict == "refused"
    assert guidance_runs.REFUSED[title] in found.schedule.why


def test_the_example(tmp_path: Path) -> None:
    sheet = tmp_path / "guidance.png"
    done = run_script(ROOT / "examples" / "guidance.py", "--out", str(sheet), "--steps=4")
    assert done.returncode == 0, done.stderr
    away = [float(line.split(":")[1].split()[0]) for line in done.stdout.splitlines()[:-1]]
    assert len(away) == 7
    assert away[1] == 0
    assert min(away[:1] + away[2:]) > 0
    assert Image.open(sheet).width > 400


@pytest.mark.parametrize(
    ("compiled", "callback", "rows"),
    [
        (wrapped, GuidanceInterval(0.3, 0.6), [2, 4, 4, 2]),
        (in_place, GuidanceSchedule([(0, 1), (0.5, 3)]), [2, 2, 4, 4]),
    ],
)
def test_on_a_compiled_denoiser(compiled: Any, callback: Any, rows: list[int]) -> None:
    """The first call is answered before the compiled one, and two graphs serve all runs."""
    pipe, call, name, shape = unet()
    expected = call(**bind(pipe, callback))
    tracer = Tracer()
    tracer.shape = shape
    compiled(pipe, name, tracer)
    before = traces(pipe)
    for _ in range(2):
        tracer.rows.clear()
        assert error(call(**bind(pipe, callback)), expected) < 1e-5
        assert tracer.rows == rows
        assert traces(pipe) == before
    assert tracer.graphs == 2


@pytest.mark.parametrize(
    ("build", "cache"),
    [(ltx, "FirstBlockCache"), (ltx, "PyramidAttentionBroadcast"), (wan, "TaylorSeer")],
)
def test_beside_caches(build: Any, cache: str) -> None:
    """What a cache keeps of steps with guidance is of no use in those without, nor the other way
    round: it forgets each time, and answers no run with what it kept of another."""
    pipe, call = build()
    pipe.transformer.enable_cache({**CACHES, **SHARED}[cache](pipe))
    plain = call()
    interval = GuidanceInterval(0.3, 0.7)
    with rows_seen(pipe) as rows:
        first = call(**bind(pipe, interval))
    guided = [int(STEPS * 0.3) <= step <= int(STEPS * 0.7) for step in range(STEPS)]
    each = min(rows)
    if build is ltx:
        assert rows == [each * (1 + step) for step in guided]
    else:
        assert len(rows) == STEPS + sum(guided)
    assert error(first, plain) > 1e-3
    assert np.array_equal(call(**bind(pipe, interval)), first)
    assert np.array_equal(call(), plain)


@pytest.mark.parametrize("callback", [GuidanceInterval(0.3, 0.7), GuidanceSchedule(3.0)])
def test_beside_model_offload(callback: Any) -> None:
    """At the end of its call, the pipeline sets up accelerate's hooks anew, from the module's own
    call: ours, which wait there for another loop, are out of it then, and must not stay behind."""
    pipe = harness.build("controlnet-img2img")
    call = call_of(pipe, "controlnet-img2img")
    expected = call(**bind(pipe, callback))
    model_offload(pipe)
    plain = call()
    before = traces(pipe)
    for _ in range(2):
        assert np.array_equal(call(**bind(pipe, callback)), expected)
        assert traces(pipe) == before
    assert np.array_equal(call(), plain)


def test_model_offload_at_the_end_of_a_loop_that_ran_out() -> None:
    """The next run's hooks are called."""
    fx, title = ways.framework(NAME), "PIAPipeline"
    entry = ways.all_entries(NAME)[title]
    fx.seed()
    pipe = entry.build(fx)
    model_offload(pipe)

    def call(*callbacks: Any) -> None:
        pipe(**entry.arguments(fx, pipe, Request()), **bind(pipe, *callbacks))

    call()
    before = traces(pipe)
    call(Interrupt(1))
    assert traces(pipe) == before
    with rows_seen(pipe) as rows:
        call(CFGCutoff(cutoff_step_index=0))
    assert rows == [2 * rows[1]] + [rows[1]] * 3
    assert traces(pipe) == before


def test_a_copied_scale_in_half_precision() -> None:
    """A moved prediction is rounded once more: a schedule differs from a call with that scale less
    than that call does from itself in float32."""
    pipe = harness.build("controlnet-img2img")
    found: dict[Any, list[Any]] = {}
    for dtype in (torch.float32, torch.bfloat16):
        pipe.to(dtype=dtype)
        given = {
            name: value.to(dtype) if isinstance(value, torch.Tensor) else value
            for name, value in harness.arguments(Case("controlnet-img2img", steps=4)).items()
        }
        plain, scheduled = (
            pipe(
                **given,
                guidance_scale=scale,
                generator=torch.Generator().manual_seed(0),
                output_type="latent",
                **(bind(pipe, GuidanceSchedule(7.0)) if scale != 7.0 else {}),
            )[0]
            .float()
            .numpy()
            for scale in (7.0, 4.0)
        )
        found[dtype] = [plain, scheduled]
    exact = found[torch.float32][0]
    assert error(found[torch.float32][1], exact) < 1e-5
    own, ours = found[torch.bfloat16]
    assert 0 < error(ours, own) < error(own, exact)
