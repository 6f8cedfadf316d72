"""What ``explain`` says is what ``bind`` does, on this framework's pipelines; a class and a
checkpoint are explained without weights as what is loaded from them."""

from __future__ import annotations

import json
from collections.abc import Callable as Function
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ways
from here import NAME, backend, diffusers, harness, on

from unicb import (
    AdaptiveProjectedGuidance,
    Callback,
    CFGCutoff,
    GuidanceInterval,
    GuidanceSchedule,
    Interrupt,
    IPAdapterScale,
    Preview,
    bind,
    explain,
)
from unicb._cli import main
from unicb._cli.explain import explanations
from zoo.entry import Request

CALLBACKS: dict[str, Function[[], Callback]] = {
    "cut": lambda: CFGCutoff(cutoff_step_index=3),
    "interval": lambda: GuidanceInterval(0.1, 0.5),
    "scale": lambda: GuidanceSchedule([(0.0, 3.0), (0.5, 7.5)]),
    "rule": lambda: AdaptiveProjectedGuidance(eta=0.1),
    "stop": lambda: Interrupt(4),
    "preview": lambda: Preview(lambda frame: None),
    "ip_adapter": lambda: IPAdapterScale(0.3),
}
#: Of those that depend on what is loaded into a pipeline, nothing can be known before.
OF_THE_CLASS = ("cut", "interval", "scale", "rule", "stop")
#: One for each way of guiding, of stopping, and of noticing a step; and such as have none.
ZOO = (
    *(
        "StableDiffusionPipeline",
        "StableDiffusionPipeline (IP-Adapter)",
        "StableDiffusionXLPipeline",
    ),
    *("StableDiffusionPAGPipeline", "AnimateDiffPAGPipeline", "FluxPipeline", "WanPipeline"),
    *("ZImagePipeline", "LuminaPipeline", "LatentConsistencyModelPipeline", "FluxFillPipeline"),
    *("PixArtAlphaPipeline", "StableVideoDiffusionPipeline", "StableAudioPipeline"),
)
TITLES = [title for title in ZOO if title in ways.all_entries(NAME)]
CHECKPOINT = Path(__file__).parents[3] / "examples" / "shapes" / "checkpoint"


def refused(pipe: Any, *callbacks: Callback) -> str | None:
    try:
        bound = bind(pipe, *callbacks)
    except Exception as error:
        return str(error)
    bound._used = True
    return None


def check(pipe: Any) -> None:
    """Every answer is bind's."""
    found = explain(pipe)
    assert found.refused == refused(pipe)
    assert {*found.features} == {*CALLBACKS}
    for name, callback in CALLBACKS.items():
        said = refused(pipe, callback())
        feature = found.features[name]
        assert (feature.works, feature.why_not) == (said is None, said), name
    assert found.backend == NAME
    assert found.dtype == "float32"
    json.dumps(found.as_dict())


@pytest.mark.parametrize("kind", harness.kinds)
def test_it_says_what_bind_says(kind: str) -> None:
    pipe = harness.build(kind)
    before = type(pipe.unet), sorted(vars(pipe.unet))
    check(pipe)
    assert (type(pipe.unet), sorted(vars(pipe.unet))) == before
    found = explain(pipe)
    assert found.features["ip_adapter"].works == kind.endswith("ip-adapter")
    assert found.guidance.way == "batch"


def test_there_are_many() -> None:
    assert len(TITLES) >= on(torch=12, mindspore=9)


@pytest.mark.parametrize("title", TITLES)
def test_it_says_what_bind_says_of_the_zoo(title: str) -> None:
    """And of the class alone, what it says of a pipeline of that class."""
    pipe = ways.pipeline(NAME, title)
    check(pipe)
    loaded = explain(pipe)
    (of_class,) = explanations(type(pipe).__name__)
    for name in OF_THE_CLASS:
        assert of_class.features[name] == loaded.features[name], name
    assert (of_class.noticed_by, of_class.tensors) == (loaded.noticed_by, loaded.tensors)
    assert of_class.guidance == loaded.guidance
    assert (of_class.device, of_class.dtype) == (None, None)


def test_answers_differ() -> None:
    every = [explain(ways.pipeline(NAME, title)) for title in TITLES]
    assert {one.noticed_by for one in every} == {"callback", "scheduler"}
    assert {one.guidance.way for one in every} >= {"batch", "calls", "none"}
    for name in ("cut", "scale", "rule", "preview", "ip_adapter"):
        assert {one.features[name].works for one in every} == {True, False}, name


def test_a_checkpoint_is_explained_as_its_pipeline_is(
    capfd: pytest.CaptureFixture[str],
) -> None:
    loaded = explain(diffusers.StableDiffusionPipeline.from_pretrained(str(CHECKPOINT)))
    (found,) = explanations(str(CHECKPOINT))
    assert found.features == loaded.features
    assert "'shapes'" in found.features["preview"].how
    assert (found.tensors, found.guidance) == (loaded.tensors, loaded.guidance)
    assert (found.basis, loaded.basis) == ("checkpoint", "pipeline")
    capfd.readouterr()
    assert main(["explain", str(CHECKPOINT), "--json"]) == 0
    out = capfd.readouterr().out
    assert json.loads(out[out.index("[\n") :])[0]["backend"] == NAME


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("StableDiffusionXLModularPipeline", "guider"),
        on(torch=("FluxAutoBlocks", "none"), mindspore=("WanAutoBlocks", "guider")),
    ],
)
def test_a_modular_class(name: str, way: str) -> None:
    (found,) = explanations(name)
    assert (found.noticed_by, found.guidance.way) == ("loop_step", way)
    assert found.features["cut"].works == (way == "guider")
    assert found.features["stop"].how == "its further steps are left out"


def test_doctor(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    out = capfd.readouterr().out
    found = {one["name"]: one for one in json.loads(out[out.index("{\n") :])["backends"]}
    assert found[NAME]["state"] == "loads"
    assert found[NAME]["devices"][0] == "cpu"
    assert found[NAME]["versions"]
    other = on(torch="mindspore", mindspore="torch")
    assert (found[other]["state"], bool(found[other]["remedy"])) == ("not installed", True)


@contextmanager
def rows_of(pipe: Any) -> Iterator[list[int]]:
    """Rows of each call of the pipeline's denoisers, as they are called."""
    rows: list[int] = []

    def around(call: Any, args: Any, kwargs: Any) -> Any:
        values = (*args, *kwargs.values())
        sample = next(
            value
            for value in values
            if isinstance(value, list) or (backend.is_tensor(value) and len(value.shape) > 1)
        )
        rows.append(len(sample) if isinstance(sample, list) else int(sample.shape[0]))
        return call(*args, **kwargs)

    facts = explain(pipe).guidance
    models = [getattr(pipe, name, None) for name in facts.denoisers]
    undo = [backend.hook(model, around) for model in models if model is not None]
    try:
        yield rows
    finally:
        for each in undo:
            each()


@pytest.mark.parametrize(
    "title",
    [
        *("StableDiffusionPipeline", "StableDiffusionPAGPipeline", "FluxPipeline"),
        *("WanPipeline", "LuminaPipeline", "PixArtAlphaPipeline"),
    ],
)
def test_report_tells_the_rows_saved(title: str) -> None:
    """In every way of cutting."""
    pipe, fx = ways.pipeline(NAME, title), ways.framework(NAME)
    entry = ways.all_entries(NAME)[title]

    def arguments() -> dict[str, Any]:
        return entry.arguments(fx, pipe, Request())

    with rows_of(pipe) as plain:
        pipe(**arguments())
    with rows_of(pipe) as cut:
        callbacks = bind(pipe, CFGCutoff(cutoff_step_index=1))
        callbacks(**arguments())
    report = callbacks.report
    assert (report.outcome, report.steps) == ("finished", 4)
    assert report.rows_saved == pytest.approx(1 - sum(cut) / sum(plain))
    assert report.rows_saved > 0.1
    assert report.first_step_seconds is not None
    assert report.decode_seconds is not None
