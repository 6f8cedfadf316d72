"""Recognise third-party libraries that answer a denoiser's calls from earlier ones.

They are recognised by their traces on the model, not by import: a library may be installed and not
used.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from unicb.errors import UnsupportedPipelineError
from unicb.guidance._replaced import package_of, put_in_place


@dataclass(frozen=True)
class CachingLibrary:
    """``CachingLibrary`` holds facts about a library that caches a model's predictions.

    Attributes:
        name: the library's usual name.
        does: what the library does that a cut breaks.
        disable: how to switch the library off.
        attributes: names of attributes, all of which it sets to a true value on a model.
        package: the package whose code replaces a model's call. Either this or ``attributes`` is
            given.
        source: where this was read.
    """

    name: str
    does: str
    disable: str
    attributes: tuple[str, ...] = ()
    package: str = ""
    source: str = ""

    def is_on(self, model: Any) -> bool:
        """Return whether the library is enabled on the model."""
        if self.package:
            return any(package_of(call) == self.package for call in put_in_place(model))
        return all(_is_set(getattr(model, name, None)) for name in self.attributes)


#: If two libraries leave the same traces, the one that leaves further ones comes first.
LIBRARIES = (
    CachingLibrary(
        "cache-dit",
        "it keeps the rows of earlier calls, and tells the halves apart by counting calls",
        "cache_dit.disable_cache(pipe)",
        attributes=("_is_cached", "_context_manager"),
        source="cache-dit 1.5.3, caching/cache_adapters/cache_adapter.py: mock_transformer",
    ),
    CachingLibrary(
        "a first-block cache (of ParaAttention, nunchaku or the like)",
        "it keeps the rows of earlier calls",
        "load the model anew, and leave out apply_cache_on_pipe",
        attributes=("_is_cached",),
        source="ParaAttention, first_block_cache/diffusers_adapters; nunchaku, "
        "caching/diffusers_adapters: apply_cache_on_transformer",
    ),
    CachingLibrary(
        "TeaCache",
        "it keeps the rows of earlier calls, and counts calls",
        "set enable_teacache to False on the model and its class",
        attributes=("enable_teacache",),
        source="TeaCache, TeaCache4FLUX/teacache_flux.py and others",
    ),
    CachingLibrary(
        "DeepCache",
        "it keeps the rows of earlier calls",
        "its helper's disable()",
        package="DeepCache",
        source="DeepCache 0.1.1, extension/deepcache.py: wrap_unet_forward",
    ),
)


def refuse_caching(models: Iterable[tuple[str, Any]], pipeline: str, aim: str) -> None:
    """Raise UnsupportedPipelineError if one of the libraries is enabled on one of these models.

    Args:
        models: pairs of the pipeline's name for a model and the model.
        pipeline: name of the pipeline's class.
        aim: what cannot be done, for the message, such as "cut guidance".
    """
    for name, model in models:
        for library in LIBRARIES:
            if library.is_on(model):
                raise UnsupportedPipelineError(
                    f"cannot {aim} on {pipeline} while {library.name} is enabled on its {name}: "
                    f"{library.does}; disable it ({library.disable}), or leave out the callback "
                    "that cuts guidance"
                )


def _is_set(value: Any) -> bool:
    """Return whether an attribute is set: to a true value, or to an object, which may be an empty
    container."""
    return value is not None and value is not False
