"""Facts about pipeline classes, read from ``pipelines.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, cast

from unicb.errors import UnsupportedPipelineError


@dataclass(frozen=True)
class PipelineFacts:
    """What there is to know of one class of pipeline.

    unicb's own data file has these for the frameworks' classes. A pipeline class of your own says
    it itself, in the class attribute ``unicb_facts``.

    Attributes:
        source: where the facts were read.
        denoiser: name of the attribute that holds the model whose output the loop guides.
        companions: names of other models that the loop calls with the doubled batch.
        cfg_rows: rows that the denoiser gets for each row of the latents, with guidance on.
        conditional_row: which of these is the conditional one; -1 is the last.
        guidance_scale: "property" if the loop reads ``pipeline.guidance_scale`` at each step,
            "local" if it keeps a copy.
        latents: name of a latent format that unicb knows, such as "sd" or "sdxl"; None if it
            knows none.
    """

    source: str
    denoiser: str
    companions: tuple[str, ...] = ()
    cfg_rows: int = 2
    conditional_row: int = -1
    guidance_scale: Literal["property", "local"] = "property"
    latents: str | None = None


@cache
def _table() -> Mapping[str, PipelineFacts]:
    text = files("unicb").joinpath("pipelines.toml").read_text(encoding="utf-8")
    return {
        name: PipelineFacts(**{**entry, "companions": tuple(entry.get("companions", ()))})
        for name, entry in tomllib.loads(text).items()
    }


def known_pipelines() -> tuple[str, ...]:
    """Names of the pipeline classes in the data file."""
    return tuple(_table())


def facts_for(pipeline: object) -> PipelineFacts | None:
    """Facts about the class of ``pipeline`` or the nearest of its bases; None if there are none.

    A class says so itself in ``unicb_facts``, or goes by its name: the frameworks call their
    ports of one pipeline the same.
    """
    for base in type(pipeline).__mro__:
        if facts := vars(base).get("unicb_facts") or _table().get(base.__name__):
            return cast(PipelineFacts, facts)
    return None


def require_interrupt_flag(pipeline: Any) -> None:
    """Raise UnsupportedPipelineError if the pipeline's loop has no flag to stop it by."""
    if not hasattr(type(pipeline), "interrupt"):
        raise UnsupportedPipelineError(
            f"{type(pipeline).__name__} cannot be interrupted: its loop has no interrupt flag"
        )
