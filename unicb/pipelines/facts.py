"""Look up facts about pipeline classes, read from the data files in ``unicb/pipelines``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, TypeAlias, cast

from unicb._tables import FactTable

#: What a block of rows, or a call of the denoiser, computes.
Part: TypeAlias = Literal["unconditional", "conditional", "perturbed"]


@dataclass(frozen=True)
class PipelineFacts:
    """``PipelineFacts`` say what there is to know of one class of pipeline.

    unicb's own data files have these for the frameworks' classes. A pipeline class of your own
    says it itself, in the class attribute ``unicb_facts``.

    Attributes:
        source: where the facts were read.
        denoisers: names of the attributes that hold the models whose output the loop guides. Some
            pipelines have several, or leave one of them out.
        companions: names of other models that the loop calls with the same rows, or as often, as
            the denoisers: ControlNets, for example.
        cfg: how the loop computes both halves of classifier-free guidance. "batch": in one call
            of a denoiser, with a batch of several blocks of rows. "calls": in several calls a
            step, by a flag that is a local of the loop. "switch": in several calls a step, by a
            property that is read at each step. "guider": in several calls a step, as an object
            of the pipeline says, which combines what they answer. "none": it does not.
        why_none: with ``cfg="none"``, the reason, as the end of a sentence that starts with the
            pipeline's name: "has no classifier-free guidance: ...".
        order: which part each block of rows, or each call of a step, computes. Blocks called
            "perturbed" are those of perturbed-attention guidance. Those to keep must be neighbours.
            Left out: the unconditional block first in a batch, the conditional call first in calls.
        least_blocks: with ``cfg="batch"``, how many of the blocks are there whenever guidance is
            on; the others only in runs that ask for more. Left out: all but the perturbed.
        off: with ``cfg="switch"``, the attributes of the pipeline that switch guidance off, and
            the values that do.
        batch_of: name of the tensor, among those offered to callbacks, whose rows count the batch.
        batch_before: name of a local of the loop whose rows count the batch before the first step,
            where there is none called as ``batch_of`` by then; empty elsewhere.
        listed: with ``cfg="batch"``, whether the batch is a Python list of one item a row.
        frames_axis: axis of the latents that counts frames, where some of the tensors that
            models are called with have a row for each frame of each row; None elsewhere.
        unbatched: names of the models' arguments that have no rows, whatever their length.
        axes: axes of rows, by name, of arguments that have them on another axis than the first.
        by_row: names of arguments that are dicts whose keys are numbers of rows.
        tail: with ``cfg="calls"``, whether one of the two calls may have more tokens than the other
            along axis 1, before those that both have, which the loop combines: in what they
            answer, and in the sample of the conditional call.
        fills: what tells calls that fill a cache for later ones: an argument and its value
            ("kv_cache_mode=extract"), or an entry of an argument that is true of them
            ("kv_cache_flag.is_cache_step"). Empty where there are none. They are left whole.
        guiders: names of the classes of ``pipeline.guider`` for which this holds; empty where
            pipelines have none.
        guided_by: with ``cfg="guider"``, names of the attributes that hold those objects; a step
            asks one of them, or all.
        guidance_scale: "property" if the loop reads ``pipeline.guidance_scale`` at each step,
            "local" if it keeps a copy.
        combination: how the loop guides, of an unconditional prediction u, a conditional one c and
            a scale g: "from_unconditional" for ``u + g * (c - u)``, "from_conditional" for
            ``c + g * (c - u)``, "other" for anything that is not so. What it adds for perturbed
            attention, and what it scales afterwards by a norm of c, does not change that.
        other_if: name of a flag of ``pipeline.config`` with which the combination is another one;
            empty where there is none.
        scale_names: where the loop has the scale that it guides a step with: locals that hold it
            when the denoiser is called ("true_cfg_scale"), or attributes that are read after that
            ("self._guidance_scale"). The first that exists counts. A sequence has one for each
            step. Left out: "guidance_scale" or "self._guidance_scale", as ``guidance_scale`` says.
        scale_follows: names of attributes that hold scales of other parts of the prediction, such
            as sound, and are the guidance scale in calls that do not pass them.
        scale_set_if: name of a local which, where it is true, has the loop set the guidance scale
            itself at each step; empty where there is none.
        guided_above: the loop guides in calls whose scale is above this; minus infinity where it
            asks for no such thing.
        unstoppable: why a run cannot go on from a stop to its result, as the end of a sentence that
            starts with the pipeline's name ("cannot decode tokens that are still masked"); empty
            where it can. Such a run can be cancelled, and not interrupted.
        latents: name of the latent format of the VAE that the class is published with, such as
            "sd" or "sdxl"; None if unicb knows none, or there are several.
        layout: the axes of "latents" as callbacks get them, in the letters of
            :class:`unicb.latents.Layout`, such as "bchw" or "b(hw)(cpq)"; empty where they hold no
            single picture or video (sound, text, embeddings, tokens of several pictures).
        size_from: where the latents' shape does not tell their height and width: the names of
            the loop's locals that hold them, or frames, height and width, while it runs.
        pixels_per_cell: what to divide those locals by: an attribute of the pipeline, as it is
            ("vae_scale_factor") or divided itself ("vae_scale_factor/2"); empty where the
            locals count the latents' cells already.
        frames_per_cell: of the locals, where the first counts frames of the video: the attribute
            of the pipeline that says how many of these, after the first, are one of the latents';
            empty where it counts those already.
        known_region: where the loop puts a given picture back into the latents after each step:
            the names of the loop's locals that hold the mask, which is 1 where the model paints,
            and the clean latents of the picture. Either is missing in runs that do not do so.
        verify: whether a run looks how its loop guides, in its first step with guidance, before it
            changes that; which takes one small transfer. Always so for facts that were read from a
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

    A class says so itself in ``unicb_facts``, or goes by its name: the frameworks call their
    ports of one pipeline the same. One that says None is as good as unknown. A loop of one's own
    has its own.
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
    """Return the number of the running call's timesteps: what the pipeline says, or its
    scheduler."""
    said = getattr(pipeline, "num_timesteps", None)
    return int(len(pipeline.scheduler.timesteps) if said is None else said)
