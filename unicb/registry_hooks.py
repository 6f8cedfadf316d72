"""Read a registry of hooks that has the interface of diffusers'."""

from __future__ import annotations

from typing import Any

from unicb.errors import UnsupportedPipelineError

FASTER_CACHE = "faster_cache_denoiser"  # as the frameworks name their hook


def refuse_faster_cache(module: Any, registry: Any) -> None:
    """Raise UnsupportedPipelineError if FasterCache on the module needs the unconditional rows."""
    faster_cache = registry.get_hook(FASTER_CACHE)
    if faster_cache is not None and not faster_cache.is_guidance_distilled:
        raise UnsupportedPipelineError(
            f"cannot cut guidance while FasterCache is enabled on the {type(module).__name__}: "
            "FasterCache makes the unconditional half up from earlier steps, and needs it in every "
            "call; disable it (disable_cache()), or leave out the callback that cuts guidance"
        )
