"""The frameworks' own callback objects, by themselves and through ``bind``: docs/migrating.md.

The table of docs/migrating.md says what becomes of each pipeline in each case; here it is read and
run.
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import ways
from here import NAME, backend, diffusers, on

from unicb import Callback, CFGCutoff, Step, UnsupportedPipelineError, bind
from unicb.pipelines import facts_for
from zoo.entry import CASES
from zoo.measure import CUT, EXACT, Meter, error, run

PAGE = Path(__file__).parents[3] / "docs" / "migrating.md"
ROW = re.compile(r"^\| `(\w+CFGCutoffCallback)` \| ([^|]+) \|([^|]+)\|([^|]+)\|([^|]+)\|$", re.M)
_ONLY = re.compile(r"(\w+) \(MindSpore: (\w+)\)")
MODULE = importlib.import_module(f"{diffusers.__name__}.callbacks")

#: The final latents, on the host.
Latents = npt.NDArray[Any]


class Row(NamedTuple):
    """What an official callback does to a pipeline of the zoo in one case."""

    callback: str
    title: str
    case: str
    verdict: str


def rows() -> Iterator[Row]:
    """The table's, for one framework; without those of callbacks that it does not have."""
    found = ROW.findall(PAGE.read_text(encoding="utf-8"))
    assert len(found) >= 10
    for callback, title, *verdicts in found:
        if not hasattr(MODULE, callback):
            continue
        for case, verdict in zip(CASES, verdicts, strict=True):
            only = _ONLY.fullmatch(verdict.strip())
            said = verdict.strip() if only is None else only[on(torch=1, mindspore=2)]
            yield Row(callback, title.replace("`", ""), case, said)


def chosen() -> list[Row]:
    """On MindSpore, where runs take long, without several images of a prompt where the table has
    for them what it has for several prompts: the callbacks are the same code as diffusers'."""
    every = list(rows())
    several = {row[:2]: row.verdict for row in every if row.case == "two prompts"}
    few = [
        row
        for row in every
        if row.case != "two images per prompt" or row.verdict != several[row[:2]]
    ]
    return on(torch=every, mindspore=few)


def official(callback: str) -> Any:
    """An official callback object of the framework, which acts at the end of step 1."""
    made = getattr(MODULE, callback)
    return made(cutoff_step_ratio=None, cutoff_step_index=CUT)


def by_itself(title: str, case: str, callback: Any) -> Latents:
    """Called as the frameworks' guides say."""
    tensors = {"callback_on_step_end_tensor_inputs": callback.tensor_inputs}
    return _called(title, case, callback_on_step_end=callback, **tensors)


def bound(title: str, case: str, *callbacks: Any) -> Latents:
    """Through ``bind``."""
    last = _Last(ways.pipeline(NAME, title))
    _called(title, case, **bind(ways.pipeline(NAME, title), *callbacks, last))
    return last.latents


def _called(title: str, case: str, **keywords: Any) -> Latents:
    fx, pipeline, request = ways.framework(NAME), ways.pipeline(NAME, title), CASES[case]
    arguments = ways.all_entries(NAME)[title].arguments(fx, pipeline, request)
    latents: Latents = backend.ops.to_numpy(pipeline(**arguments, **keywords)[0])
    return latents


def reference(title: str, case: str) -> Latents:
    """Both halves computed to the end, the unconditional one overwritten after the cut."""
    fx, pipeline, request = ways.framework(NAME), ways.pipeline(NAME, title), CASES[case]
    meter = Meter(fx, pipeline, facts_for(pipeline), request.rows, reference=True)
    run(ways.all_entries(NAME)[title], fx, pipeline, request, meter)
    assert meter.latents is not None
    return meter.latents


def verdict(make: Callable[[], Latents], expected: Latents) -> str:
    """Of a cut: "right", "wrong", or "raises"."""
    try:
        return "right" if error(make(), expected) < EXACT else "wrong"
    except Exception:
        return "raises"


@pytest.mark.parametrize("row", chosen(), ids=lambda row: " ".join(row[:3]))
def test_table(row: Row) -> None:
    """By itself it does what the table says; through ``bind`` it does so too, but is no wrong
    picture and leaves nothing behind; and CFGCutoff is right."""
    where = (row.title, row.case)
    pipeline, expected = ways.pipeline(NAME, row.title), reference(*where)
    made = official(row.callback)
    scale = pipeline.guidance_scale
    assert verdict(lambda: by_itself(*where, made), expected) == row.verdict
    pipeline._guidance_scale = scale  # it leaves 0 behind
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of one row for several pictures
        if row.verdict == "wrong":
            with pytest.raises(UnsupportedPipelineError, match="CFGCutoff"):
                bound(*where, made)
        else:
            assert verdict(lambda: bound(*where, made), expected) == row.verdict
            assert pipeline.guidance_scale > 1
    if NAME == "torch" or row.case == "two prompts":  # it takes long on the other
        cut = CFGCutoff(cutoff_step_index=CUT)
        assert verdict(lambda: bound(*where, cut), expected) == "right"
        assert pipeline.guidance_scale > 1


class _Last(Callback):
    def __init__(self, pipeline: Any) -> None:
        facts = facts_for(pipeline)
        self._name = "latents" if facts is None else facts.batch_of
        self.tensors = (self._name,)
        self.latents: Latents = np.empty(0)

    def on_step_end(self, step: Step) -> None:
        self.latents = step.ops.to_numpy(step[self._name])


def test_ip_adapter_scale() -> None:
    """By itself, the callback leaves scale 0 behind for the next call; through ``bind``, not."""
    title, case = "StableDiffusionPipeline (IP-Adapter)", "one prompt"
    pipeline = ways.pipeline(NAME, title)
    pipeline.set_ip_adapter_scale(0.7)
    plain = _called(title, case)
    cut = bound(title, case, official("IPAdapterScaleCutoffCallback"))
    assert error(cut, plain) > 1e-3
    assert error(_called(title, case), plain) < EXACT
    try:
        made = official("IPAdapterScaleCutoffCallback")
        assert error(by_itself(title, case, made), cut) < EXACT
        assert error(_called(title, case), plain) > 1e-3  # without the adapter
    finally:
        pipeline.set_ip_adapter_scale(1.0)


def test_several() -> None:
    """``MultiPipelineCallbacks``: both cut at the same step, and both put back."""
    title, case = "StableDiffusionPipeline (IP-Adapter)", "one prompt"
    pipeline = ways.pipeline(NAME, title)
    pipeline.set_ip_adapter_scale(0.7)
    names = ("SDCFGCutoffCallback", "IPAdapterScaleCutoffCallback")
    try:
        plain = _called(title, case)
        scales = official(names[1])
        both = MODULE.MultiPipelineCallbacks([official(each) for each in names])
        cut = bound(title, case, both)
        expected = bound(title, case, CFGCutoff(cutoff_step_index=CUT), scales)
        assert error(cut, expected) < EXACT
        assert error(_called(title, case), plain) < EXACT
        assert pipeline.guidance_scale > 1
    finally:
        pipeline.set_ip_adapter_scale(1.0)


def test_two_adapters() -> None:
    """The callback gives one scale to the two adapters, which the pipeline refuses."""
    title = "StableDiffusionPipeline (two IP-Adapters)"
    made = official("IPAdapterScaleCutoffCallback")
    with pytest.raises(ValueError, match="Cannot assign 1 scale_configs to 2 IP-Adapter"):
        bound(title, "one prompt", made)
