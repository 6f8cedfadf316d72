"""Look up facts about pipeline classes, read from the data files in ``unicb/pipelines``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, TypeAlias, cast

from unicb._tables import FactTable

#: Which prediction a block of rows, or a call of the denoiser, computes.
Part: TypeAlias = Literal["unconditional", "conditional", "perturbed"]


@dataclass(frozen=True)
class PipelineFacts:
    """``PipelineFacts`` say how the loop of one pipeline class works.

    unicb's data files have facts about the frameworks' classes. A pipeline class of your own brings
    its facts in its class attribute ``unicb_facts``.

    Attributes:
        source: where the facts were read.
        denoisers: names of the attributes that hold the models whose output the loop guides. Some
            pipelines have several, or leave one of them out.
        companions: names of other models that the loop calls with the same rows, or as often, as
            the denoisers: ControlNets, for example.
        cfg: how the loop computes both halves of classifier-free guidance. "batch": in one call
            of a denoiser, with a batch of several blocks of rows. "calls": in several calls a
            step, depending on a flag that is a local variable of the loop. "switch": in several
            calls a step, depending on a property that is read at each step. "guider": in several
            calls a step, which an object of the pipeline asks for and combines. "none": the class
            has no guidance.
        why_none: with ``cfg="none"``, the reason, as the end of a sentence that starts with the
            pipeline's name: "has no classifier-free guidance: ...".
        order: which part each block of rows, or each call of a step, computes. Blocks called
            "perturbed" are those of perturbed-attention guidance. Those to keep must be neighbours.
            Left out: the unconditional block first in a batch, the conditional call first in calls.
        least_blocks: with ``cfg="batch"``, the number of blocks that are present whenever guidance
            is on; runs may ask for the others. Left out: all but the perturbed.
        off: with ``cfg="switch"``, the attributes of the pipeline that switch guidance off, and
            the values that do.
        batch_of: name of the tensor, among those offered to callbacks, whose rows count the batch.
        batch_before: name of a local variable of the loop whose rows count the batch before the
            first step, if there is no ``batch_of`` by then; else empty.
        listed: with ``cfg="batch"``, True if the batch is a Python list with one item for each row.
        frames_axis: axis of the latents that counts frames, if some arguments of the models have a
            row for each frame; else None.
        unbatched: names of the models' arguments that have no rows, whatever their length.
        axes: for arguments whose rows are not on the first axis: their names, each with its axis of
            rows.
        by_row: names of arguments that are dicts whose keys are indices of rows.
        tail: with ``cfg="calls"``, True if one of the two calls may have further tokens on axis 1,
            before the tokens of both that the loop combines: in the output, and in the sample of
            the conditional call.
        fills: how to recognise calls that fill a cache for later calls, and are not cut: an
            argument and its value ("kv_cache_mode=extract"), or an entry of an argument that is
            true in such calls ("kv_cache_flag.is_cache_step"). Empty if there are none.
        guiders: names of the classes of ``pipeline.guider`` for which these facts hold; empty if
            there is no guider.
        guided_by: with ``cfg="guider"``, names of the attributes with the guiders; a step uses one
            or all of them.
        guidance_scale: "property" if the loop reads ``pipeline.guidance_scale`` at each step,
            "local" if it keeps a copy.
        combination: how the loop combines an unconditional prediction u and a conditional one c
            with a scale g: "from_unconditional": ``u + g * (c - u)``; "from_conditional":
            ``c + g * (c - u)``; "other": anything else. A term for perturbed attention, or a
            rescaling by a norm of c, does not count.
        other_if: name of a flag in ``pipeline.config`` that changes the combination to "other";
            empty if there is none.
        scale_names: names under which the loop has the scale of a step: local variables that hold
            it when the denoiser is called ("true_cfg_scale"), or attributes that are read after
            that ("self._guidance_scale"). The first that exists counts. A sequence has a scale for
            each step. Left out: "guidance_scale" or "self._guidance_scale", as ``guidance_scale``
            says.
        scale_follows: names of attributes that hold scales of other parts of the prediction, such
            as sound, and are the guidance scale in calls that do not pass them.
        scale_set_if: name of a local variable with which, if it is true, the loop sets the guidance
            scale itself at each step; empty if there is none.
        guided_above: the loop guides if the scale is above this number; minus infinity if it guides
            at any scale.
        unstoppable: why an interrupted run has no result, as the end of a sentence that starts with
            the pipeline's name ("cannot decode tokens that are still masked"); empty if it has one.
            Such a run can be cancelled, but not interrupted.
        latents: name of the latent format of the VAE that the class is published with, such as
            "sd" or "sdxl"; None if unicb knows none, or there are several.
        layout: the axes of "latents" as callbacks get them, in the letters of
            :class:`unicb.latents.Layout`, such as "bchw" or "b(hw)(cpq)"; empty if they hold no
            single picture or video (sound, text, embeddings, tokens of several pictures).
        size_from: if the latents' shape does not show height and width: names of the loop's local
            variables with (height, width) or (frames, height, width).
        pixels_per_cell: the number by which these height and width are divided: an attribute of the
            pipeline ("vae_scale_factor"), or half of one ("vae_scale_factor/2"); empty if they
            count the latents' cells already.
        frames_per_cell: if the first of these variables counts the video's frames: the attribute of
            the pipeline with the number of frames, after the first, per latent frame; empty if it
            counts latent frames already.
        known_region: if the loop puts a given picture back into the latents after each step: names
            of the loop's local variables with the mask, which is 1 where the model paints, and with
            the picture's clean latents. In runs that put no picture back, one of them does not
            exist.
        verify: True if a run checks in its first step with guidance how its loop guides, before
            guidance is changed, which takes one small transfer. Always True for facts read from a
            class's code, and for loops of known classes that unicb was not proven on.

    Example:
        >>> class MyPipeline(type(pipe)):
        ...     unicb_facts = PipelineFacts(source="this file", denoisers=("unet",), latents="sd")
        >>> image = bind(MyPipeline(), CFGCutoff(0.4))("a red star")[0]
    """

    source: str
    denoisers: tuple[str, ...] = ()
    companions: tuple[str, ...] = ()
    cfg: Literal["batch", "calls", "switch", "guider", "none"] = "batch"
    why_none: str = ""
    order: tuple[Part, ...] = ()
    least_blocks: int = 0
    off: Mapping[str, float] = field(default_factory=lambda: {"_guidance_scale": 1.0})
    batch_of: str = "latents"
    batch_before: str = ""
    listed: bool = False
    frames_axis: int | None = None
    unbatched: tuple[str, ...] = ()
    axes: Mapping[str, int] = field(default_factory=dict)
    by_row: tuple[str, ...] = ()
    tail: bool = False
    fills: str = ""
    guiders: tuple[str, ...] = ()
    guided_by: tuple[str, ...] = ()
    guidance_scale: Literal["property", "local"] = "property"
    combination: Literal["from_unconditional", "from_conditional", "other"] = "from_unconditional"
    other_if: str = ""
    scale_names: tuple[str, ...] = ()
    scale_follows: tuple[str, ...] = ()
    scale_set_if: str = ""
    guided_above: float = 1.0
    unstoppable: str = ""
    latents: str | None = None
    layout: str = "bchw"
    size_from: tuple[str, ...] = ()
    pixels_per_cell: str = ""
    frames_per_cell: str = ""
    known_region: tuple[str, ...] = ()
    verify: bool = False

    def __post_init__(self) -> None:
        if not self.order:
            usual: tuple[Part, ...] = ("unconditional", "conditional")
            object.__setattr__(self, "order", usual if self.cfg == "batch" else usual[::-1])
        if not self.least_blocks:
            object.__setattr__(
                self, "least_blocks", len(self.order) - self.order.count("perturbed")
            )
        if not self.scale_names:
            usual_name = (
                "guidance_scale" if self.guidance_scale == "local" else "self._guidance_scale"
            )
            object.__setattr__(self, "scale_names", (usual_name,))
        kept = "".join("-" if part == "unconditional" else "k" for part in self.order).strip("-")
        if self.order.count("conditional") != 1 or "-" in kept:
            raise ValueError(
                f"order {self.order} must have one conditional part, next to the perturbed ones"
            )
        if len(self.known_region) not in (0, 2):
            raise ValueError(
                f"known_region {self.known_region} must name two locals: the mask, the latents"
            )


@cache
def _table() -> FactTable[PipelineFacts]:
    return FactTable("unicb.pipelines", "*.toml", PipelineFacts)


def known_pipelines() -> tuple[str, ...]:
    """Return the names of the pipeline classes in the data files, sorted."""
    return tuple(sorted(_table()))


def facts_for(pipeline: object) -> PipelineFacts | None:
    """Return the facts about the class of ``pipeline`` or the nearest of its bases; None if there
    are none.

    Facts come from the class attribute ``unicb_facts``, or are looked up by the class's name, since
    a port has the same name as the original. If ``unicb_facts`` is None, nothing is known. A
    :class:`unicb.Loop` has facts of its own.
    """
    if hasattr(type(pipeline), "_unicb_facts_of_its_own"):
        return cast(Any, pipeline)._unicb_facts_of_its_own  # type: ignore[no-any-return]
    return _table().about(type(pipeline))


def facts_owner(kind: type) -> type | None:
    """Return ``kind`` or the nearest of its bases about which there are facts; None if there is
    none."""
    return _table().owner(kind)


@cache
def usual_unbatched() -> tuple[str, ...]:
    """Return the names of arguments without rows, over all known classes."""
    return tuple(sorted({name for facts in _table().values() for name in facts.unbatched}))


def num_timesteps_of(pipeline: Any) -> int:
    """Return the number of the running call's timesteps, from the pipeline or from its
    scheduler."""
    said = getattr(pipeline, "num_timesteps", None)
    return int(len(pipeline.scheduler.timesteps) if said is None else said)
