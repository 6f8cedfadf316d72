"""Write the checkpoint in the layout that diffusers and mindone.diffusers both read."""

from __future__ import annotations

import json
from pathlib import Path

from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

PREFIX = "text_model."


def save_text_encoder(text_encoder: CLIPTextModel, folder: Path) -> None:
    """Save with every weight's name under `text_model.`, as transformers 4 did.

    transformers 5 drops the prefix. transformers 4, and with it mindone, then finds none of its
    weights, and starts from random ones with only a warning.
    """
    text_encoder.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    named = {k if k.startswith(PREFIX) else PREFIX + k: v for k, v in weights.items()}
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})


def _model_index(version: str) -> dict[str, object]:
    return {
        "_class_name": StableDiffusionPipeline.__name__,
        "_diffusers_version": version,
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }


def save_checkpoint(
    folder: Path,
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    scheduler: DDIMScheduler,
) -> None:
    """Write everything but the tokenizer, whose files are there already."""
    vae.save_pretrained(folder / "vae")
    unet.save_pretrained(folder / "unet")
    scheduler.save_pretrained(folder / "scheduler")
    save_text_encoder(text_encoder, folder / "text_encoder")
    index = _model_index(str(unet.config["_diffusers_version"]))
    text = json.dumps(index, indent=2) + "\n"
    (folder / "model_index.json").write_text(text, encoding="utf-8")


def save_tiny_vae(folder: Path, tiny: AutoencoderTiny) -> None:
    """Write it as a folder that `AutoencoderTiny.from_pretrained` reads."""
    tiny.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    # The class adds this itself, and warns of it when it finds it in a file.
    del config["block_out_channels"]
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
