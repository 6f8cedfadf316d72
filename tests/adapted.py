"""A toy pipeline with IP-Adapters, whose scales are stored as a UNet's are in the frameworks."""

from __future__ import annotations

from typing import Any

from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline, ToyUNet

NAMES = (
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2.processor",
    "mid_block.attentions.0.transformer_blocks.0.attn2.processor",
    "up_blocks.0.attentions.0.transformer_blocks.0.attn2.processor",
    "up_blocks.0.attentions.1.transformer_blocks.0.attn2.processor",
)


class PlainProcessor:
    """Attention that no adapter has been loaded into."""


class AdapterProcessor:
    """``scale``: one for each adapter."""

    to_k_ip = "its keys"

    def __init__(self, adapters: int) -> None:
        self.scale: Any = [1.0] * adapters


class AdaptedUNet(ToyUNet):
    """Adds the sum of all scales to the noise; ``seen`` has all the scales of each call, and
    ``rows`` its rows."""

    def __init__(self, adapters: int) -> None:
        self.attn_processors: dict[str, Any] = {"down_blocks.1.attn1.processor": PlainProcessor()}
        if adapters:
            self.attn_processors |= {name: AdapterProcessor(adapters) for name in NAMES}
        self.seen: list[list[Any]] = []
        self.rows: list[int] = []

    def scales(self) -> list[Any]:
        found = self.attn_processors.values()
        return [list(p.scale) for p in found if isinstance(p, AdapterProcessor)]

    def forward(
        self, sample: StrictTensor, timestep: float, encoder_hidden_states: StrictTensor
    ) -> StrictTensor:
        self.seen.append(self.scales())
        self.rows.append(len(sample.data))
        push = sum(sum(scale) for scale in self.seen[-1])
        plain = super().forward(sample, timestep, encoder_hidden_states)
        return StrictTensor(plain.data + 0.01 * push)


class AdaptedPipeline(ToyPipeline):
    """Its ``set_ip_adapter_scale`` takes what those of Stable Diffusion's pipelines take, and is
    as strict or lax."""

    def __init__(self, adapters: int = 1, order: int = 1) -> None:
        super().__init__(order)
        self.unet: AdaptedUNet = AdaptedUNet(adapters)

    def set_ip_adapter_scale(self, scale: Any) -> None:
        scales = scale if isinstance(scale, list) else [scale]
        for name, processor in self.unet.attn_processors.items():
            if not isinstance(processor, AdapterProcessor):
                continue
            if len(scales) != len(processor.scale):
                raise ValueError(f"Cannot assign {len(scales)} scales to {len(processor.scale)}")
            for i, value in enumerate(scales):
                processor.scale[i] = _of_block(name, value) if isinstance(value, dict) else value


def _of_block(name: str, scale: dict[str, Any]) -> float:
    place, number, _, attention = name.split(".")[:4] if "mid" not in name else ("mid", "", "", "0")
    value = scale.get(place.removesuffix("_blocks"), 0.0)
    if isinstance(value, dict):
        value = value.get(f"block_{number}", 0.0)
    return float(value[int(attention)] if isinstance(value, list) else value)
