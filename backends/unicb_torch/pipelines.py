"""Build tiny random-weight diffusers pipelines."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
import transformers

from unicb.testing.tiny import IMAGE_WIDTH, TEXT_WIDTH, TinyPipelines


class TorchPipelines(TinyPipelines):
    def __init__(self) -> None:
        super().__init__(diffusers, transformers.CLIPTextModel)

    def seed(self) -> None:
        torch.manual_seed(0)

    def ready(self, model: Any) -> Any:
        return model.eval()

    def fill_zeros(self, model: Any) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                if not parameter.any():
                    parameter.normal_(std=0.1)

    def add_ip_adapter(self, pipeline: Any) -> None:
        pipeline.unet._load_ip_adapter_weights([ip_adapter(pipeline.unet)])


def ip_adapter(unet: Any) -> dict[str, dict[str, torch.Tensor]]:
    """Make random weights in the layout of an IP-Adapter file with four image tokens."""
    layers: dict[str, torch.Tensor] = {}
    key = 1
    for name in unet.attn_processors:
        if name.endswith("attn1.processor"):
            continue
        width = unet.get_submodule(name.removesuffix(".processor")).to_q.out_features
        for part in ("to_k_ip", "to_v_ip"):
            layers[f"{key}.{part}.weight"] = torch.randn(width, TEXT_WIDTH)
        key += 2
    projection = {
        "proj.weight": torch.randn(4 * TEXT_WIDTH, IMAGE_WIDTH),
        "proj.bias": torch.randn(4 * TEXT_WIDTH),
        "norm.weight": torch.ones(TEXT_WIDTH),
        "norm.bias": torch.zeros(TEXT_WIDTH),
    }
    return {"image_proj": projection, "ip_adapter": layers}
