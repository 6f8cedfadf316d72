"""What the conformance suite needs of this backend."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from unicb.backend import Around
from unicb.testing import Case, Harness
from unicb_torch import backend
from unicb_torch.pipelines import IMAGE_WIDTH, KINDS, PIXELS, POOLED_WIDTH, TEXT_WIDTH, build

if "OMP_NUM_THREADS" not in os.environ:
    torch.set_num_threads(1)  # on tensors this small, threads do nothing but wait for each other


class TorchHarness(Harness):
    backend = backend
    kinds = tuple(KINDS)
    single_prompt_kinds = ("controlnet-multi", "xl-controlnet-multi")
    dtypes = ("bfloat16", "float16", "float32", "float64")

    expected_failures = {
        "test_every_offered_tensor_reaches_the_loop[controlnet-inpaint]": (
            "diffusers 0.42.1 offers mask and masked_image_latents, and never takes them back"
        ),
        "test_every_offered_tensor_reaches_the_loop[xl-controlnet-inpaint]": (
            "diffusers 0.42.1 offers add_text_embeds, mask and more, and never takes them back"
        ),
    }

    def build(self, kind: str) -> Any:
        return build(kind)

    def run(self, pipeline: Any, case: Case, **keywords: Any) -> npt.NDArray[Any]:
        out = pipeline(
            **arguments(case),
            guidance_scale=case.guidance_scale,
            num_images_per_prompt=case.images_per_prompt,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
            **keywords,
        )
        array: npt.NDArray[Any] = out[0].numpy()
        return array

    def tensor(self, array: npt.NDArray[Any], dtype: str) -> torch.Tensor:
        return torch.tensor(array, dtype=getattr(torch, dtype))

    def draw(self) -> npt.NDArray[Any]:
        array: npt.NDArray[Any] = torch.randn(3).numpy()
        return array

    def spy(self, pipeline: Any, around: Around) -> Callable[[], None]:
        unet = pipeline.unet
        base = type(unet)

        def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
            return around(partial(base.forward, self), args, kwargs)

        unet.__class__ = type("Spied", (base,), {"forward": forward})
        return lambda: setattr(unet, "__class__", base)

    def traces(self, pipeline: Any) -> object:
        models = [pipeline.unet, getattr(pipeline, "controlnet", None)]
        return [sorted(vars(m)) for m in models if m is not None], pipeline._guidance_scale


def arguments(case: Case) -> dict[str, Any]:
    """Seeded arguments for the call of a tiny pipeline of the case's kind."""
    _, traits = KINDS[case.kind]
    random = np.random.default_rng(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.tensor(random.normal(size=shape), dtype=torch.float32)

    def pictures() -> torch.Tensor:
        shape = (case.prompts, 3, PIXELS, PIXELS)
        return torch.tensor(random.uniform(size=shape), dtype=torch.float32)

    embeds = (case.prompts, 5, TEXT_WIDTH)
    found: dict[str, Any] = {
        "prompt_embeds": normal(*embeds),
        "negative_prompt_embeds": normal(*embeds),
        "height": PIXELS,
        "width": PIXELS,
        "num_inference_steps": case.steps,
    }
    if "prompts" in traits:
        del found["prompt_embeds"], found["negative_prompt_embeds"]
        found["prompt"] = [f"prompt {i}" for i in range(case.prompts)]
    if "xl" in traits:
        found["pooled_prompt_embeds"] = normal(case.prompts, POOLED_WIDTH)
        found["negative_pooled_prompt_embeds"] = normal(case.prompts, POOLED_WIDTH)
    if "image" in traits:
        found |= {"image": pictures(), "strength": 1.0}
        if "mask" not in traits and "controlnet" not in traits:
            del found["height"], found["width"]
    if "mask" in traits:
        found["mask_image"] = torch.zeros(case.prompts, 1, PIXELS, PIXELS)
        found["mask_image"][:, :, 4:12, 4:12] = 1
    if "controlnet" in traits:
        control = [pictures(), pictures()] if "multi" in traits else pictures()
        found["control_image" if "image" in traits else "image"] = control
        found["guess_mode"] = "guess" in traits
    if "ip-adapter" in traits:
        both = normal(2, 1, IMAGE_WIDTH)  # unconditional and conditional
        found["ip_adapter_image_embeds"] = [both if case.guidance_scale > 1 else both[1:]]
    if "rescale" in traits:
        found["guidance_rescale"] = 0.7
    return found


harness = TorchHarness()
