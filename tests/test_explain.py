"""What ``explain`` says works is what ``bind`` takes, and its reasons are bind's errors."""

from __future__ import annotations

import json
from collections.abc import Callable as Function
from types import SimpleNamespace
from typing import Any

import guided
import loops
import pytest
import scheduled
from adapted import AdaptedPipeline
from modular_toy import Guider, ModularToy, Parts, SkipGuider, TermsGuider
from stop_helpers import BlockPipeline

import unicb
from unicb import (
    AdaptiveProjectedGuidance,
    BackendNotFoundError,
    Callback,
    CFGCutoff,
    GuidanceInterval,
    GuidanceSchedule,
    Interrupt,
    IPAdapterScale,
    Loop,
    PipelineFacts,
    Preview,
    bind,
    explain,
)
from unicb_numpy.pipelines import ToyPipeline, ToyScheduler, ToyUNet

#: What a user would bind for each feature.
CALLBACKS: dict[str, Function[[], Callback]] = {
    "cut": lambda: CFGCutoff(cutoff_step_index=3),
    "interval": lambda: GuidanceInterval(0.1, 0.5),
    "scale": lambda: GuidanceSchedule([(0.0, 3.0), (0.5, 7.5)]),
    "rule": lambda: AdaptiveProjectedGuidance(eta=0.1),
    "stop": lambda: Interrupt(4, picture="latents"),
    "preview": lambda: Preview(lambda frame: None, every=3),
    "ip_adapter": lambda: IPAdapterScale(0.3),
}


class Unguided(ToyPipeline):
    unicb_facts = PipelineFacts("this file", cfg="none", why_none="guides in no way")


class Sound(ToyPipeline):
    unicb_facts = PipelineFacts("this file", denoisers=("unet",), layout="")


class Unnamed(ToyPipeline):
    """Its format is not known."""

    unicb_facts = PipelineFacts("this file", denoisers=("unet",))


class Mute(ToyPipeline):
    """Says nothing of its tensors."""

    _callback_tensor_inputs = None  # type: ignore[assignment]


class HandsOn(ToyPipeline):
    unicb_facts = None  # type: ignore[assignment]

    def __init__(self) -> None:
        self.inside = ToyPipeline()

    def __call__(self, prompt: Any, callback_on_step_end: Any = None) -> Any:  # type: ignore[override]
        return self.inside(prompt, callback_on_step_end=callback_on_step_end)


class Stepless(ToyPipeline):
    unicb_facts = None  # type: ignore[assignment]

    def __call__(self, prompt: Any) -> Any:  # type: ignore[override]
        return prompt


def _without_unet() -> ToyPipeline:
    pipe = ToyPipeline()
    del pipe.unet
    return pipe


def _caching() -> ToyPipeline:
    pipe = ToyPipeline()
    pipe.unet.enable_teacache = True  # type: ignore[attr-defined]
    return pipe


class _Closed:
    __slots__ = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("not called")


def _closed() -> ToyPipeline:
    pipe = BlockPipeline()
    pipe.unet = _Closed()  # type: ignore[assignment]
    return pipe


def _other_vae() -> ToyPipeline:
    pipe = ToyPipeline()
    pipe.vae = SimpleNamespace(config=SimpleNamespace(latent_channels=16))  # type: ignore[attr-defined]
    return pipe


def _blockless() -> ModularToy:
    pipe = ModularToy()
    pipe._blocks.sub_blocks.clear()
    return pipe


def _odd_guider() -> ModularToy:
    guider = Guider()
    guider.prepare_inputs = lambda *args: [][0]  # type: ignore[attr-defined]
    return ModularToy(guider)


def _own_loop() -> Loop:
    return Loop(unet=ToyUNet(), scheduler=ToyScheduler())


def _classes(module: Any) -> list[type[ToyPipeline]]:
    found = [one for one in vars(module).values() if isinstance(one, type)]
    kinds = [kind for kind in found if issubclass(kind, ToyPipeline) and kind is not ToyPipeline]
    return [kind for kind in kinds if kind.__module__ == module.__name__]


PIPELINES: dict[str, Function[[], Any]] = {
    kind.__name__: kind
    for kind in (
        *(*_classes(loops), *_classes(guided), *_classes(scheduled)),
        *(ToyPipeline, BlockPipeline, AdaptedPipeline, Unguided, Sound, Unnamed, Mute, HandsOn),
        *(Stepless, ModularToy),
    )
}
PIPELINES |= {
    function.__name__: function
    for function in (
        *(_without_unet, _caching, _closed, _other_vae, _blockless, _odd_guider, _own_loop),
    )
}
PIPELINES |= {
    "order 2": lambda: ToyPipeline(order=2),
    "skip guider": lambda: ModularToy(SkipGuider()),
    "terms guider": lambda: ModularToy(TermsGuider()),
    "guider off": lambda: ModularToy(Guider(1.0)),
    "parts": lambda: ModularToy(loop=Parts()),
}


def refused(pipe: Any, *callbacks: Callback) -> str | None:
    """What bind says against it."""
    try:
        bound = bind(pipe, *callbacks)
    except Exception as error:
        return str(error)
    bound._used = True
    return None


@pytest.mark.parametrize("make", PIPELINES.values(), ids=PIPELINES)
def test_it_says_what_bind_says(make: Function[[], Any]) -> None:
    pipe = make()
    found = explain(pipe)
    assert found.refused == refused(pipe)
    assert {*found.features} == {*CALLBACKS}
    for name, callback in CALLBACKS.items():
        feature = found.features[name]
        said = refused(pipe, callback())
        assert (feature.works, feature.why_not) == (said is None, said), name
        assert feature.works or feature.how == ""
    if found.refused is None:
        bound = bind(pipe)
        bound._used = True
        assert found.noticed_by == bound._bound.target.noticed_by
        assert found.tensors == bound._bound.target.offered
    json.dumps(found.as_dict())
    assert all(len(line) <= 100 for line in repr(found).splitlines() if " " in line.strip())


def test_the_pipelines_differ() -> None:
    """There are all answers among them, and several reasons for each no."""
    every = [explain(make()) for make in PIPELINES.values()]
    assert {one.noticed_by for one in every} == {"callback", "loop_step", "scheduler", None}
    ways = {one.guidance.way for one in every}
    assert ways == {"batch", "calls", "switch", "guider", "none", None}
    for name in CALLBACKS:
        reasons = {one.features[name].why_not for one in every}
        assert None in reasons
        assert len(reasons) > 4, name
    assert {one.guidance.is_observed for one in every} == {True, False}


def test_it_leaves_the_pipeline_as_it_is() -> None:
    pipe = BlockPipeline()
    before = {name: vars(getattr(pipe, name)).copy() for name in ("unet", "scheduler")}
    mine = vars(pipe).copy()
    explain(pipe)
    assert vars(pipe) == mine
    assert {name: vars(getattr(pipe, name)) for name in before} == before
    assert type(pipe.unet).__name__ == "BlockUNet"


@pytest.mark.parametrize(
    ("make", "how"),
    [
        (ToyPipeline, "its loop reads the interrupt flag"),
        (guided.BatchOfLocal, "its loop reads no flag, and runs out without computing anything"),
        (ModularToy, "its further steps are left out"),
    ],
)
def test_how_it_stops(make: Function[[], Any], how: str) -> None:
    assert explain(make()).features["stop"].how == how


def test_what_else_it_says() -> None:
    found = explain(AdaptedPipeline())
    assert found.features["ip_adapter"].how.startswith("1 IP-Adapter with the scale")
    assert found.features["preview"].how == (
        "in the colours of the format 'sd': 4 channels, a pixel for 8 x 8 of the picture"
    )
    assert (found.backend, found.dtype) == ("numpy", "float32")
    assert found.versions["numpy"]
    assert explain(_caching()).caches == ("TeaCache on its ToyUNet",)
    assert "in the way of a cut: TeaCache" in repr(explain(_caching()))
    assert explain(guided.Inferred()).guidance.is_observed


def test_html() -> None:
    html = explain(Unguided())._repr_html_()
    assert html.count("<tr>") >= 10
    assert "guides in no way" in html


def test_what_is_no_pipeline() -> None:
    with pytest.raises(BackendNotFoundError, match="no pipeline that an installed backend knows"):
        explain(object())


def test_it_is_public() -> None:
    assert {"explain", "Explanation", "Report"} <= {*unicb.__all__}
