"""Adapt functions and objects written for the frameworks' own argument to callbacks of unicb.

They change the pipeline's private attributes directly, as the frameworks' guides say.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unicb.callback import FunctionCallback
from unicb.errors import UnsupportedPipelineError
from unicb.guidance._attributes import Ours, put_back
from unicb.ops import Tensor
from unicb.step import Step

if TYPE_CHECKING:
    from unicb.pipelines.target import Target
    from unicb.run.run import Run

_GUIDANCE, _IP_ADAPTER = "guidance", "ip_adapter_scale"

#: What each class in diffusers 0.42.1's callbacks.py owns; mindone 0.5.0's port has the same.
_OWNS: Mapping[str, str] = {
    "SDCFGCutoffCallback": _GUIDANCE,
    "SDXLCFGCutoffCallback": _GUIDANCE,
    "SDXLControlnetCFGCutoffCallback": _GUIDANCE,
    "SD3CFGCutoffCallback": _GUIDANCE,
    "IPAdapterScaleCutoffCallback": _IP_ADAPTER,
}
_SCALE, _FLAG = "_guidance_scale", "_interrupt"
_MISSING = object()


def names_its_tensors(callback: object) -> bool:
    """Return whether a callable object names the tensors it needs in its attribute
    ``tensor_inputs``.

    Raises:
        TypeError: ``tensor_inputs`` is left to subclasses, and the object's class does not define
            it.
    """
    try:
        return hasattr(callback, "tensor_inputs")
    except NotImplementedError as error:
        raise TypeError(
            f"{type(callback).__name__} does not say which tensors it is handed: give the class a "
            'list of names, such as tensor_inputs = ["latents"]'
        ) from error


def is_guider(value: object) -> bool:
    """Return whether the object's class derives from a framework's ``BaseGuidance``."""
    return any(base.__name__ == "BaseGuidance" for base in type(value).__mro__)


@dataclass
class _Set:
    """Hold what a callback function has changed on the pipeline in one run.

    Attributes:
        scale: the guidance scale that the function has set, under the name of the attribute.
        adapters: pairs of an attention processor and the scale that it had before the run; None
            before the first step.
    """

    scale: dict[str, Ours] = field(default_factory=dict)
    adapters: list[tuple[Any, Any]] | None = None


class PlainCallback(FunctionCallback):
    """``PlainCallback`` wraps a plain function, and puts its changes to the pipeline back after the
    run.

    The guidance scale that it sets is put back at the end of the run. A run whose interrupt flag
    it raises has been interrupted, also where the loop reads no such flag.

    Raises:
        UnsupportedPipelineError: in the run: the function sets the interrupt flag of a pipeline
            that cannot be interrupted.
    """

    def on_step_end(self, step: Step) -> None:
        pipeline = step.pipeline
        scale, flag = getattr(pipeline, _SCALE, _MISSING), getattr(pipeline, _FLAG, _MISSING)
        try:
            super().on_step_end(step)
        finally:
            if getattr(pipeline, _SCALE, scale) is not scale:
                self._keep_scale(step, scale)
            if getattr(pipeline, _FLAG, False) is True and flag is not True:
                if flag is _MISSING:
                    del pipeline._interrupt
                else:
                    pipeline._interrupt = flag
                step.interrupt(picture="latents")

    def _keep_scale(self, step: Step, before: object) -> None:
        """Put the scale back at the end of the run.

        ``step.guidance_scale`` would refuse a scale of which the loop keeps a copy. The loop may
        all the same ask at each step whether the scale says that there is guidance.
        """
        pipeline, run = step.pipeline, step.run
        ours = run.state(self, _Set).scale
        if isinstance(pipeline._guidance_scale, int | float):
            if not ours and before is _MISSING:
                run.on_finish(lambda: vars(pipeline).pop(_SCALE, None))
            elif not ours:
                run.on_finish(lambda: put_back(pipeline, _SCALE, before, ours))
            ours[_SCALE] = pipeline._guidance_scale = Ours(pipeline._guidance_scale)


class ObjectCallback(PlainCallback):
    """``ObjectCallback`` wraps a callable object with ``tensor_inputs``: the frameworks'
    ``PipelineCallback`` and ``MultiPipelineCallbacks``, and objects written like them.

    The object itself is called. The guidance scale and IP-Adapter scales that it sets on the
    pipeline are put back at the end of the run. A use that would give a wrong picture is an error.

    Raises:
        TypeError: the object's ``tensor_inputs`` is no list of names.
        UnsupportedPipelineError: from ``bind``: the object sets an IP-Adapter's scale, and none is
            loaded; or it cuts guidance while an IP-Adapter is loaded, whose unconditional half it
            would leave in. In the run: it leaves a tensor with fewer rows than pictures, for
            several prompts.
    """

    def __init__(self, function: Any) -> None:
        names = function.tensor_inputs
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise TypeError(
                f"{type(function).__name__}.tensor_inputs is {names!r}; it must be a list of names"
            )
        super().__init__(function, tuple(dict.fromkeys(names)))
        self.owns = tuple(sorted({_OWNS[name] for name in _class_names(function) if name in _OWNS}))

    def on_bind(self, target: Target) -> None:
        self._check_ip_adapter(target.pipeline)

    def on_step_end(self, step: Step) -> None:
        pipeline, kept = step.pipeline, step.run.state(self, _Set)
        if kept.adapters is None:
            self._check_ip_adapter(pipeline)  # one may have been loaded since bind
            kept.adapters = [(one, _copy(one.scale)) for one in _scaled(pipeline)]
            if _IP_ADAPTER in self.owns:
                for processor, scale in kept.adapters:
                    step.run.hold(processor, "scale", scale)
                kept.adapters.clear()  # what is held needs no putting back
        before = {name: step._tensors[name] for name in self.tensors}
        scale = getattr(pipeline, _SCALE, None)
        with step.run.as_own() if _IP_ADAPTER in self.owns else nullcontext():
            super().on_step_end(step)
            cuts = _GUIDANCE in self.owns and getattr(pipeline, _SCALE, None) is not scale
            if cuts and any(_is_on(processor) for processor in _scaled(pipeline)):
                raise self._leaves_half_in(pipeline)
        self._check_rows(step, before)

    def on_run_end(self, run: Run) -> None:
        for processor, scale in run.state(self, _Set).adapters or ():
            processor.scale = scale

    def _name(self) -> str:
        return type(self.function).__name__

    def _check_ip_adapter(self, pipeline: Any) -> None:
        loaded = any(hasattr(processor, "to_k_ip") for processor in _scaled(pipeline))
        if _IP_ADAPTER in self.owns and not loaded:
            raise UnsupportedPipelineError(
                f"{self._name()} sets the scale of an IP-Adapter, and this "
                f"{type(pipeline).__name__} has none loaded: call load_ip_adapter() before bind()"
            )
        if _GUIDANCE in self.owns and loaded and _IP_ADAPTER not in self.owns:
            raise self._leaves_half_in(pipeline)

    def _leaves_half_in(self, pipeline: Any) -> UnsupportedPipelineError:
        return UnsupportedPipelineError(
            f"{self._name()} would leave the unconditional half of the IP-Adapter's embeddings in, "
            f"which {type(pipeline).__name__} does not hand to callbacks, and the picture would be "
            "another one; unicb's CFGCutoff cuts them too"
        )

    def _check_rows(self, step: Step, before: Mapping[str, Tensor]) -> None:
        facts = step.run.target.facts
        batch_of = "latents" if facts is None else facts.batch_of
        pictures = _rows(step._tensors.get(batch_of))
        short = [
            name
            for name, tensor in before.items()
            if name != batch_of
            and _rows(step._tensors[name]) < min(_rows(tensor), pictures)
            and _rows(step._tensors[name]) > 0
        ]
        if not short:
            return
        what = (
            f"{self._name()} leaves {_rows(step._tensors[short[0]])} row of {short[0]} for "
            f"{pictures} pictures"
        )
        instead = "unicb's CFGCutoff keeps a row for each"
        if any(_differ(before[name][-pictures:], step) for name in short):
            raise UnsupportedPipelineError(f"{what}, which are not of the same prompt; {instead}")
        warnings.warn(f"{what}, and few pipelines can do with that; {instead}", stacklevel=2)


def _class_names(callback: Any) -> Iterator[str]:
    """Yield the class names of a callback object, and of the callback objects inside it."""
    for kind in type(callback).__mro__:
        yield kind.__name__
    members = getattr(callback, "callbacks", ())
    for member in members if isinstance(members, list | tuple) else ():
        yield from _class_names(member)


def _scaled(pipeline: Any) -> Iterator[Any]:
    """Yield the attention processors that have a scale: those of IP-Adapters."""
    for name in ("unet", "transformer"):
        processors = getattr(getattr(pipeline, name, None), "attn_processors", {})
        yield from (one for one in processors.values() if hasattr(one, "scale"))


def _copy(scale: Any) -> Any:
    return list(scale) if isinstance(scale, list) else scale


def _is_on(processor: Any) -> bool:
    scale = processor.scale if isinstance(processor.scale, list) else [processor.scale]
    return hasattr(processor, "to_k_ip") and any(one != 0 for one in scale)


def _rows(tensor: Any) -> int:
    """Return how many rows a tensor has; 0 for None, or for a list of tensors."""
    shape: Any = getattr(tensor, "shape", ())
    return int(shape[0]) if len(shape) else 0


def _differ(rows: Tensor, step: Step) -> bool:
    host = step.ops.to_numpy(rows)
    return bool((host != host[-1:]).any())
