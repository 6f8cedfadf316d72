"""Ask a pipeline what works on it: ``print(unicb.explain(pipe))``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from unicb._bind_checks import bound_to
from unicb._explained import (
    Guided,
    caches_of,
    device_and_dtype,
    guided_by,
    how_adapted,
    how_shown,
    how_stopped,
    versions_of,
)
from unicb._sheet import Line, as_html, as_text
from unicb.backend import backend_for
from unicb.callback import Callback
from unicb.errors import BackendLoadError, BackendNotFoundError
from unicb.pipelines import facts_for
from unicb.pipelines.target import Target

__all__ = ["Explanation", "Feature", "explain"]

#: What an explanation was made from.
Basis: TypeAlias = Literal["pipeline", "checkpoint", "class"]


@dataclass(frozen=True)
class Feature:
    """One thing that a callback may do, and whether this pipeline allows it.

    Attributes:
        name: ``"cut"``, ``"interval"``, ``"scale"``, ``"rule"``, ``"stop"``, ``"preview"`` or
            ``"ip_adapter"``.
        callback: name of a callback that does it.
        works: True if ``bind`` takes that callback.
        why_not: the message of the error that ``bind`` raises; None if it raises none.
        how: the way in which it works; empty if there is only one way, or it does not work.
    """

    name: str
    callback: str
    works: bool
    why_not: str | None
    how: str


@dataclass(frozen=True)
class Explanation:
    """An explanation says what unicb knows about a pipeline, and which callbacks work on it.
    ``print`` shows it in one screen.

    Attributes:
        pipeline: name of the pipeline's class.
        backend: name of the backend.
        versions: version of each package that the backend needs, by the package's name.
        device, dtype: the denoiser's, in lower case; None if not known or not loaded.
        refused: the message with which ``bind`` refuses the pipeline whatever the callbacks; None
            if it accepts some.
        noticed_by: what shows the ends of the steps: ``"callback"``, ``"loop_step"`` or
            ``"scheduler"``; None if nothing does.
        tensors: names of the tensors that callbacks may read and write.
        guidance: how classifier-free guidance works on the pipeline.
        features: the :class:`Feature` objects, by name.
        caches: caching libraries enabled on the denoiser, which prevent a cut of guidance, such as
            ``"TeaCache on transformer"``.
        basis: what was examined. ``"pipeline"``: a loaded pipeline; ``"checkpoint"``: only its
            class and configurations; ``"class"``: only its class, so that a checkpoint's VAE or
            scheduler may change an answer. An IP-Adapter or a cache is seen only on a loaded
            pipeline.

    Example:
        >>> explain(pipe).features["cut"].works
        True
    """

    pipeline: str
    backend: str
    versions: Mapping[str, str]
    device: str | None
    dtype: str | None
    refused: str | None
    noticed_by: str | None
    tensors: tuple[str, ...]
    guidance: Guided
    features: Mapping[str, Feature]
    caches: tuple[str, ...]
    basis: Basis = "pipeline"

    def as_dict(self) -> dict[str, Any]:
        """Return all attributes as a dict of JSON values."""
        found = asdict(self)
        found["tensors"], found["caches"] = list(self.tensors), list(self.caches)
        found["guidance"] = self.guidance.as_dict()
        return found

    def _title(self) -> str:
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        on = [x for x in (self.device, self.dtype) if x is not None]
        return ", ".join([f"{self.pipeline}: {self.backend} ({versions})", *on])

    def _lines(self) -> Iterator[Line]:
        if self.refused is not None:
            yield "refused", self.refused
        if self.noticed_by is not None:
            yield "steps", _NOTICED[self.noticed_by]
        yield "tensors", ", ".join(self.tensors) or "none"
        yield "guidance", self.guidance.words
        for feature in self.features.values():
            answer = f"no: {feature.why_not}"
            if feature.works:
                answer = f"yes, {feature.how}" if feature.how else "yes"
            yield feature.callback, answer
        if self.caches:
            yield "caches", f"in the way of a cut: {', '.join(self.caches)}"
        if self.basis in _NOTES:
            yield "note", _NOTES[self.basis]

    def __repr__(self) -> str:
        return as_text(self._title(), self._lines())

    def _repr_html_(self) -> str:
        return as_html(self._title(), self._lines())


_UNSEEN = "an IP-Adapter or a cache that comes later is not seen"
_NOTES: Mapping[str, str] = {
    "checkpoint": f"no weights were loaded; {_UNSEEN}",
    "class": f"of the class alone: a checkpoint's VAE or scheduler may change it, and {_UNSEEN}",
}
_NOTICED = {
    "callback": "end where its loop calls callback_on_step_end: callbacks(...), or **callbacks",
    "loop_step": "end where loop_step of its blocks returns: callbacks(...)",
    "scheduler": "end where scheduler.step returns, as its loop calls no callback: callbacks(...)",
}


def explain(pipeline: Any) -> Explanation:
    """Say what works on a pipeline, and why not where it does not.

    ``bind`` is tried with a callback of each kind: what it accepts works, and otherwise its error
    is the reason. Nothing runs, and the pipeline does not change. The arguments of a later call are
    not known: with a guidance scale of 1, for instance, there is no guidance to cut.

    Args:
        pipeline: the pipeline, as for :func:`unicb.bind`.

    Raises:
        BackendNotFoundError, BackendLoadError: as from :func:`unicb.bind`.

    Example:
        >>> explain(pipe).pipeline
        'ToyPipeline'
    """
    return explained(pipeline, "pipeline")


def explained(pipeline: Any, basis: Basis) -> Explanation:
    """Explain a pipeline as :func:`explain` does; ``basis`` says whether it has models or
    stand-ins."""
    backend = backend_for(pipeline)
    refused = refusal(pipeline, ())
    target = None if refused is not None else Target(pipeline, backend, facts_for(pipeline))
    features = {}
    for name, callback, how in _kinds():
        why_not = refusal(pipeline, (callback,))
        said = how(target) if why_not is None and how is not None and target is not None else ""
        label = _LABELS.get(name, type(callback).__name__)
        features[name] = Feature(name, label, why_not is None, why_not, said)
    is_loaded = basis == "pipeline"
    device, dtype = device_and_dtype(pipeline, target) if is_loaded else (None, None)
    return Explanation(
        pipeline=type(pipeline).__name__,
        backend=backend.name,
        versions=versions_of(backend),
        device=device,
        dtype=dtype,
        refused=refused,
        noticed_by=None if target is None else target.noticed_by,
        tensors=() if target is None else target.offered,
        guidance=guided_by(target),
        features=features,
        caches=() if target is None else tuple(caches_of(target)),
        basis=basis,
    )


def refusal(pipeline: Any, callbacks: Sequence[Callback]) -> str | None:
    """Return the message with which ``bind`` refuses these callbacks; None if it accepts them."""
    try:
        bound_to(pipeline, callbacks, None, None, lambda run: None)
    except (BackendNotFoundError, BackendLoadError):
        raise
    except Exception as error:
        return str(error)
    return None


#: Labels of features whose callback is an example of a whole kind.
_LABELS = {"rule": "GuidanceRule"}


def _kinds() -> Iterator[tuple[str, Callback, Any]]:
    """Yield each feature's name, a callback that needs the feature, and the function that says how
    it works (or None)."""
    from unicb.callbacks import (
        AdaptiveProjectedGuidance,
        CFGCutoff,
        GuidanceInterval,
        GuidanceSchedule,
        Interrupt,
        IPAdapterScale,
        Preview,
    )

    yield "cut", CFGCutoff(0.5), None
    yield "interval", GuidanceInterval(0.2, 0.8), None
    yield "scale", GuidanceSchedule(5.0), None
    yield "rule", AdaptiveProjectedGuidance(), None
    yield "stop", Interrupt(0), how_stopped
    yield "preview", Preview([]), how_shown
    yield "ip_adapter", IPAdapterScale(1.0), how_adapted
