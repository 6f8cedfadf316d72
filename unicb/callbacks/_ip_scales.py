"""Find the scales of a pipeline's IP-Adapters, check new ones, and put the old ones back."""

from __future__ import annotations

import re
from copy import deepcopy
from typing import TYPE_CHECKING, Any, TypeAlias

from unicb.checks import number
from unicb.errors import UnsupportedPipelineError

if TYPE_CHECKING:
    from unicb import Run

#: What a pipeline's ``set_ip_adapter_scale`` takes: a number, a dict by block, a list by adapter.
Scale: TypeAlias = float | dict[str, Any] | list[Any]

# diffusers' load_ip_adapter puts the adapters' attention into one of these models.
_MODELS = ("unet", "transformer")
_IN_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.attentions\.(\d+)\.|(mid)_block\.")


def checked_scale(name: str, value: Any) -> Scale:
    """Return ``value``, if it is a scale: a number, or a list or dict of scales.

    Raises:
        TypeError, ValueError: ``value`` is no scale.
    """
    if isinstance(value, list):
        if not value:
            raise ValueError(f"{name} is an empty list; give it one scale for each IP-Adapter")
        return [checked_scale(name, item) for item in value]
    if isinstance(value, dict):
        if not value or not all(isinstance(key, str) for key in value):
            raise TypeError(
                f"{name} is {value!r}; a dict has scales by the names of blocks, such as "
                '{"down": 0.5, "up": {"block_0": 1.0}}, and a table is a list of '
                "(progress, scale) tuples"
            )
        return {key: checked_scale(f"{name}[{key!r}]", item) for key, item in value.items()}
    if isinstance(value, tuple | str | bytes) or value is None:
        raise TypeError(f"{name} must be a number, a dict by block or a list, not {value!r}")
    return number(name, value)


class Adapters:
    """``Adapters`` are the IP-Adapters in a pipeline's denoiser.

    Attributes:
        model: the denoiser.
        processors: the adapters' attention processors, by name. Each one's ``scale`` is a list with
            one number for each adapter, or a number if there can be only one adapter.

    Raises:
        UnsupportedPipelineError: no IP-Adapter is loaded.
    """

    def __init__(self, owner: str, pipeline: Any) -> None:
        kind = type(pipeline).__name__
        if not hasattr(pipeline, "set_ip_adapter_scale"):
            raise UnsupportedPipelineError(
                f"{owner}: {kind} takes no IP-Adapter: it has no set_ip_adapter_scale"
            )
        self._pipeline = pipeline
        self.model: Any = None
        self.processors: dict[str, Any] = {}
        for name in _MODELS:
            model = getattr(pipeline, name, None)
            found = getattr(model, "attn_processors", None) or {}
            # Attributes that all classes of IP-Adapter processors have, and no other processors.
            ours = {n: p for n, p in found.items() if hasattr(p, "to_k_ip") and hasattr(p, "scale")}
            if ours:
                self.model, self.processors = model, ours
                return
        raise UnsupportedPipelineError(
            f"{owner}: no IP-Adapter is loaded into this {kind}; call its load_ip_adapter() first"
        )

    @property
    def count(self) -> int:
        """Return how many adapters the pipeline has loaded."""
        scale = next(iter(self.processors.values())).scale
        return len(scale) if isinstance(scale, list) else 1

    def blocks(self) -> dict[str, set[str]]:
        """Return the names of the UNet's blocks that the adapters act in:
        ``{"up": {"block_0"}, "mid": …}``; empty for a transformer, whose blocks have no such
        names."""
        found: dict[str, set[str]] = {}
        for match in map(_IN_BLOCK.match, self.processors):
            if match is not None and match[4]:
                found.setdefault("mid", set())
            elif match is not None:
                found.setdefault(match[1], set()).add(f"block_{match[2]}")
        return found

    def check(self, name: str, scale: Scale) -> None:
        """Check that ``scale`` fits the pipeline.

        Raises:
            ValueError: ``scale`` has the wrong number of entries, or names blocks that do not
                exist.
            TypeError: the pipeline takes no scale of this form, such as a dict by blocks.
        """
        kind, blocks = type(self._pipeline).__name__, self.blocks()
        if isinstance(scale, float):
            return
        first = next(iter(self.processors.values()))
        if not isinstance(first.scale, list):
            raise TypeError(f"{name}: the scale of {kind} is a number, not {scale!r}")
        if not blocks:
            self._check_layers(name, scale)
            return
        scales = scale if isinstance(scale, list) else [scale]
        self._check_count(name, len(scales))
        for item in scales:
            if isinstance(item, dict):
                self._check_blocks(name, item, blocks)

    def assign(self, scale: Scale) -> None:
        """Set ``scale`` by the pipeline's own method."""
        # A UNet's method takes only a list with a scale for each adapter; a transformer's repeats a
        # number.
        if isinstance(scale, float) and self.blocks():
            scale = [scale] * self.count
        self._pipeline.set_ip_adapter_scale(deepcopy(scale))

    def values(self) -> list[Any]:
        """Return a copy of the processors' scales, in their order."""
        return [deepcopy(processor.scale) for processor in self.processors.values()]

    def _check_count(self, name: str, given: int) -> None:
        if given != self.count:
            raise ValueError(
                f"{name} has {given} scales, and the pipeline has {self.count} IP-Adapters; "
                "give it one for each, or one number for all"
            )

    def _check_layers(self, name: str, scale: dict[str, Any] | list[Any]) -> None:
        kind, layers = type(self._pipeline).__name__, len(self.processors)
        if isinstance(scale, dict):
            raise TypeError(
                f"{name}: {kind} takes no dict of blocks; give it a number, or a list of "
                f"{layers} numbers, one for each of its layers"
            )
        if self.count == 1 and not any(isinstance(item, list) for item in scale):
            scale = [scale]
        self._check_count(name, len(scale))
        for item in scale:
            if isinstance(item, dict) or (isinstance(item, list) and len(item) != layers):
                raise ValueError(
                    f"{name}: {kind} takes a number, or {layers} numbers, one for each of its "
                    f"layers, and not {item!r}"
                )

    def _check_blocks(self, name: str, scale: dict[str, Any], blocks: dict[str, set[str]]) -> None:
        if "mid" not in blocks:  # the pipeline's own method then fails with any dict
            raise ValueError(
                f"{name} is a dict, which set_ip_adapter_scale does not take for a UNet without "
                "attention in its middle block; give it a number"
            )
        # The pipeline's own method ignores names of unknown blocks.
        given = [(key, None) for key in scale]
        given += [
            (key, block) for key, item in scale.items() if isinstance(item, dict) for block in item
        ]
        for key, block in given:
            if key not in blocks or (block is not None and block not in blocks[key]):
                unknown = key if block is None else f"{key}.{block}"
                known = [f"{k}.{b}" for k in sorted(blocks) for b in sorted(blocks[k]) or [""]]
                raise ValueError(
                    f"{name} names the block {unknown!r}; the IP-Adapter's are: "
                    f"{', '.join(item.rstrip('.') for item in known)}"
                )
        for key, item in scale.items():
            parts = item.items() if isinstance(item, dict) else [(None, item)]
            for block, value in parts:
                self._check_attentions(name, key, block, value)

    def _check_attentions(self, name: str, key: str, block: str | None, value: Any) -> None:
        if isinstance(value, dict):
            raise TypeError(f"{name}: the scale of {key}.{block} must be a number or a list")
        if not isinstance(value, list) or len(value) == 1:
            return
        counts: dict[str, set[str]] = {}
        for match in map(_IN_BLOCK.match, self.processors):
            if match is not None and key in (match[1], match[4]):
                part = "mid" if match[4] else f"block_{match[2]}"
                counts.setdefault(part, set()).add(match[3] or "0")
        for part, attentions in sorted(counts.items()):
            if block in (None, part) and len(attentions) != len(value):
                raise ValueError(
                    f"{name} has {len(value)} scales for {key}.{part}, which has "
                    f"{len(attentions)} attentions; give it one number, or one for each"
                )


class HeldScales:
    """``HeldScales`` holds the scales of a pipeline's IP-Adapters for one run. Other calls on the
    same denoiser use the scales from before."""

    def __init__(self, adapters: Adapters, run: Run) -> None:
        self.adapters, self._run = adapters, run
        self._scale: Scale | None = None
        for processor in adapters.processors.values():
            run.hold(processor, "scale", deepcopy(processor.scale))

    def assign(self, scale: Scale) -> None:
        """Set ``scale`` on the pipeline, if it differs from the last one set here."""
        if scale != self._scale:
            with self._run.as_own():
                self.adapters.assign(scale)
            self._scale = scale

    def values(self) -> list[Any]:
        """Return a copy of the processors' scales in the run, in their order."""
        with self._run.as_own():
            return self.adapters.values()
