"""Facts about pipeline classes, read from ``pipelines.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from unicb.errors import UnsupportedPipelineError


@dataclass(frozen=True)
class PipelineFacts:
    """What unicb knows of one class of pipeline. The fields are explained in the data file."""

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

    Classes go by their names: the frameworks call their ports of one pipeline the same.
    """
    for base in type(pipeline).__mro__:
        if facts := _table().get(base.__name__):
            return facts
    return None


def require_interrupt_flag(pipeline: Any) -> None:
    """Raise UnsupportedPipelineError if the pipeline's loop has no flag to stop it by."""
    if not hasattr(type(pipeline), "interrupt"):
        raise UnsupportedPipelineError(
            f"{type(pipeline).__name__} cannot be interrupted: its loop has no interrupt flag"
        )
