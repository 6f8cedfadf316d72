"""Say in words how features work on a pipeline, from the same facts that a run uses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError
from typing import Any

from unicb.backend import Backend
from unicb.callbacks._ip_scales import Adapters
from unicb.errors import UnsupportedPipelineError
from unicb.guidance._caching import LIBRARIES
from unicb.latents import find_format
from unicb.pipelines import PipelineFacts
from unicb.pipelines.stoppable import stops_by_flag
from unicb.pipelines.target import Target


@dataclass(frozen=True)
class Guided:
    """``Guided`` says how classifier-free guidance works on a pipeline, as far as unicb knows.

    Attributes:
        way: ``"batch"``: one denoiser call a step, on several blocks of rows; ``"calls"`` or
            ``"switch"``: several calls a step; ``"guider"``: the calls that the pipeline's guider
            asks for; ``"none"``: no guidance; None: not known.
        denoisers: names of the pipeline's attributes that hold the denoiser models.
        order: what each block of rows, or each call, computes: "unconditional", "conditional",
            "perturbed".
        is_observed: True if the run checks how its first guided step combines the predictions,
            because unicb was not tested on this loop.
        words: all of the above in a sentence; if ``way`` is None, why it is not known.
    """

    way: str | None
    denoisers: tuple[str, ...]
    order: tuple[str, ...]
    is_observed: bool
    words: str

    def as_dict(self) -> dict[str, Any]:
        """Return all attributes as a dict of JSON values."""
        return {**asdict(self), "denoisers": list(self.denoisers), "order": list(self.order)}


def guided_by(target: Target | None) -> Guided:
    """Say how guidance works on a pipeline; ``target`` is None if ``bind`` refuses the pipeline."""
    if target is None:
        return Guided(None, (), (), False, "not known")
    try:
        facts = target.guidance.facts
    except UnsupportedPipelineError as error:
        return Guided(None, (), (), False, f"not known: {error}")
    if facts.cfg == "none":
        return Guided("none", facts.denoisers, (), False, f"none: it {facts.why_none}")
    words = _words(target.pipeline, facts)
    is_observed = facts.verify and facts.cfg in ("batch", "calls")
    if is_observed:
        words += "; not proven on this loop, so its first step with guidance is looked at"
    return Guided(facts.cfg, facts.denoisers, facts.order, is_observed, words)


def _words(pipeline: Any, facts: PipelineFacts) -> str:
    denoisers, order = " or ".join(facts.denoisers), ", ".join(facts.order)
    if facts.cfg == "batch":
        return f"one call of the {denoisers} a step, on blocks of rows: {order}"
    if facts.cfg == "guider":
        guiders = (getattr(pipeline, name, None) for name in facts.guided_by)
        kinds = " and ".join(f"a {type(one).__name__}" for one in guiders if one is not None)
        return f"its guider, {kinds}, says which predictions of the {denoisers} a step takes"
    asks = "" if facts.cfg == "calls" else ", by a switch that its loop reads in each"
    return f"several calls of the {denoisers} a step: {order}{asks}"


def how_stopped(target: Target) -> str:
    """Say how an interrupted run ends."""
    if target.modular is not None:
        return "its further steps are left out"
    if stops_by_flag(target.pipeline):
        return "its loop reads the interrupt flag"
    return "its loop reads no flag, and runs out without computing anything"


def how_shown(target: Target) -> str:
    """Say what a preview is made of."""
    try:
        form = find_format(target.pipeline, target.facts)
    except UnsupportedPipelineError:
        return ""
    scale = form.spatial_scale
    of = f"{form.latent_channels} channels, a pixel for {scale} x {scale} of the picture"
    return f"in the colours of the format {form.name!r}: {of}"


def how_adapted(target: Target) -> str:
    """Say which IP-Adapters are loaded."""
    adapters = Adapters("IPAdapterScale", target.pipeline)
    values = adapters.values()
    scales = values[0] if all(value == values[0] for value in values) else "different ones"
    count = adapters.count
    return f"{count} IP-Adapter{'s' if count > 1 else ''} with the scale {scales}"


def caches_of(target: Target) -> Iterator[str]:
    """Yield each caching library that is enabled on one of the models, such as
    ``"TeaCache on transformer"``."""
    for model in target.models:
        library = next((each for each in LIBRARIES if each.is_on(model)), None)
        if library is not None:
            yield f"{library.name} on its {type(model).__name__}"


def device_and_dtype(pipeline: Any, target: Target | None) -> tuple[str | None, str | None]:
    """Return the device and dtype of the first denoiser, else of the pipeline; (None, None)
    otherwise."""
    models = [] if target is None else target.models[:1]
    for of in (*models, pipeline):
        device, dtype = (_said(of, name) for name in ("device", "dtype"))
        if device is not None or dtype is not None:
            return device, dtype
    return None, None


def _said(of: Any, name: str) -> str | None:
    try:
        value = getattr(of, name, None)
    except Exception:  # whatever a property of somebody's model does
        return None
    return None if value is None else str(value).rpartition(".")[2].lower()


def versions_of(backend: Backend) -> Mapping[str, str]:
    """Return the versions of the packages that the backend needs."""
    try:
        return dict(backend.versions())
    except PackageNotFoundError:
        return {}
