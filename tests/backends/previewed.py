"""Previews on one class of every layout, and of every rule for the size of latents."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from ways import all_entries, framework

from unicb import Preview, Step, bind
from unicb.latents.formats import find_format
from unicb.pipelines import facts_for
from zoo.coverage import classes, facts_named
from zoo.entry import CASES
from zoo.previews import Array, Shown, measure, refusal

#: Entries of the zoo: what they stand for is seen in their facts, see ``rule``.
CHOSEN = (
    "WanPipeline",
    "BriaPipeline",
    "CogVideoXPipeline",
    "ErnieImagePipeline",
    "FluxControlNetInpaintPipeline",
    "FluxPipeline",
    "Ideogram4Pipeline",
    "JoyImageEditPipeline (reference)",
    "Kandinsky5I2IPipeline",
    "Kandinsky5T2VPipeline",
    "Kandinsky6TI2VAPipeline (from an image, silent)",
    "LongCatImageEditPipeline",
    "LTX2InContextPipeline",
    "LTXConditionPipeline (keyframe)",
    "LTXPipeline",
    "QwenImageLayeredPipeline",
    "StableDiffusionPipeline (order-2 scheduler)",
    "StableVideoDiffusionPipeline",
    # A timestep for each frame; another shape in the scheduler than in the loop; growing pictures.
    "SkyReelsV2DiffusionForcingPipeline",
    "Cosmos3OmniPipeline",
    "HeliosPyramidPipeline",
)
#: Wrong facts, for entries of the zoo, that give latents of the same shape another sense.
WRONG: dict[str, dict[str, Any]] = {
    "FluxPipeline": {"layout": "b(hw)(pqc)"},
    "Ideogram4Pipeline": {"layout": "b(hw)(cpq)"},
    "CogVideoXPipeline": {"layout": "bcthw"},
    "LTXConditionPipeline (keyframe)": {"layout": "b(thw+)(cpq)"},
    "LTX2InContextPipeline": {"layout": "b(+thw)(cpq)"},
    "QwenImageLayeredPipeline": {"layout": "b(hw)(cpq)"},
    "BriaPipeline": {"size_from": ("width", "height")},
    "LTXPipeline": {"size_from": ("latent_num_frames", "latent_width", "latent_height")},
}
#: VAEs as published: the class, and its configuration where that is not the default of the class.
#: The models are made small, which no format looks at.
_KL = {
    "block_out_channels": (4, 4),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 2,
}
_WAN = {"base_dim": 4, "dim_mult": [1, 1], "num_res_blocks": 1, "temperal_downsample": [False]}
_16 = {"latent_channels": 16}
PUBLISHED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "StableDiffusionPipeline": ("sd", "AutoencoderKL", _KL),
    "StableDiffusionXLPipeline": ("sdxl", "AutoencoderKL", {**_KL, "scaling_factor": 0.13025}),
    "StableDiffusion3Pipeline": (
        "sd3",
        "AutoencoderKL",
        {**_KL, **_16, "scaling_factor": 1.5305, "shift_factor": 0.0609},
    ),
    "FluxPipeline": (
        "flux",
        "AutoencoderKL",
        {**_KL, **_16, "scaling_factor": 0.3611, "shift_factor": 0.1159},
    ),
    "Flux2Pipeline": ("flux2", "AutoencoderKLFlux2", _KL),
    "QwenImagePipeline": ("wan21", "AutoencoderKLQwenImage", _WAN),
    "WanPipeline": ("wan21", "AutoencoderKLWan", _WAN),
}


def rule(title: str, name: str) -> tuple[Any, ...]:
    """What two classes share whose latents are read in the same way."""
    facts = facts_named(all_entries(name)[title].name)
    if facts is None:
        return ("",)
    return facts.layout, facts.size_from, facts.pixels_per_cell


def chosen(name: str, titles: Any = CHOSEN) -> list[str]:
    return [title for title in titles if title in all_entries(name)]


def rules(name: str, titles: Any) -> set[tuple[Any, ...]]:
    found = {rule(title, name) for title in titles}
    return {rule for rule in found if rule[0]}


@cache
def pipeline(name: str, title: str) -> Any:
    fx = framework(name)
    fx.seed()
    return all_entries(name)[title].build(fx)


def shown(name: str, title: str) -> Shown:
    """With the largest case that the pipeline can do."""
    entry = all_entries(name)[title]
    case = [case for case in CASES if case not in entry.impossible][-1]
    return measure(entry, framework(name), pipeline(name, title), CASES[case])


def shown_with_wrong_facts(name: str, title: str, monkeypatch: pytest.MonkeyPatch) -> Shown:
    made = pipeline(name, title)
    facts = facts_for(made)
    assert facts is not None
    wrong = replace(facts, **WRONG[title])
    monkeypatch.setattr(type(made), "unicb_facts", wrong, raising=False)
    return shown(name, title)


def refused(name: str, title: str) -> Shown | None:
    return refusal(pipeline(name, title))


def without_layout(name: str) -> set[str]:
    """Classes of the framework whose latents hold no picture and no video, by their facts."""
    found = {kind: facts_named(kind) for kind in classes(framework(name))}
    return {kind for kind, facts in found.items() if facts is not None and not facts.layout}


def one_step_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Break previews: none of the third step."""
    step_end = Preview.on_step_end
    monkeypatch.setattr(
        Preview, "on_step_end", lambda self, step: step.index == 2 or step_end(self, step)
    )


def latents_are_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Break previews: they change the latents, by one part in a million."""
    step_end = Preview.on_step_end

    def changing(self: Preview, step: Step) -> None:
        step_end(self, step)
        step["latents"] = step["latents"] * (1 + 1e-6)

    monkeypatch.setattr(Preview, "on_step_end", changing)


def format_found(name: str, class_name: str) -> str:
    """The name of the format that a pipeline with the published VAE is bound with."""
    _, vae, config = PUBLISHED[class_name]
    fx = framework(name)
    made = all_entries(name)[class_name].build(fx)
    made.register_modules(vae=fx.model(vae, **config))
    bind(made, Preview([]))
    return find_format(made, facts_for(made)).name


#: What could be wrong with where things are shown. Arrays are ``[rows, frames, h, w, channels]``.
MISPLACED = {
    "upside down": lambda x: x[:, :, ::-1],
    "mirrored": lambda x: x[:, :, :, ::-1],
    "transposed": lambda x: x.swapaxes(2, 3),
    "one cell off": lambda x: np.roll(x, 1, axis=3),
    "two cells exchanged": lambda x: x[:, :, :, [1, 0, *range(2, x.shape[3])]],
    "rows exchanged": lambda x: x[::-1],
    "frames exchanged": lambda x: x[:, ::-1],
    "channels exchanged": lambda x: x[..., ::-1],
    "another number of rows": lambda x: x[:1],
    "smaller": lambda x: x[:, :, :-1],
}


def cells() -> Array:
    """Latents of a batch of two tiny videos."""
    return np.random.default_rng(5).normal(size=(2, 2, 4, 4, 4))
