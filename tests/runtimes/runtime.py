"""The runtime that is installed here, and a harness of the suite on what was exported for it."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from exported_shapes import load
from unicb.testing import Case
from unicb_torch.harness import TorchHarness

#: Where nox has put the checkpoint, exported for the runtime.
FOLDER = Path(os.environ.get("UNICB_EXPORTED", "not exported"))
if not FOLDER.is_dir():
    raise RuntimeError(
        'UNICB_EXPORTED names no folder: run nox -s "conformance(onnx)" or "conformance(openvino)"'
    )
NAME = "onnx" if find_spec("onnxruntime") else "openvino"

PROMPTS = ["a red star on a blue background", "a white ring on a black background"]
PIXELS = 64

#: The class of each kind, as diffusers calls it.
_CLASSES = {
    "text2img": "StableDiffusionPipeline",
    "order-2": "StableDiffusionPipeline",
    "rescale": "StableDiffusionPipeline",
    "img2img": "StableDiffusionImg2ImgPipeline",
    "inpaint": "StableDiffusionInpaintPipeline",
}
_WHAT = {"onnx": "an InferenceSession", "openvino": "a CompiledModel"}[NAME]


class RuntimeHarness(TorchHarness):
    """Pipelines on a runtime's models; their tensors are torch's, as is what it does with them."""

    kinds = tuple(_CLASSES)
    single_prompt_kinds = ()
    dtypes = ("float32",)
    expected_failures = {
        f"test_copies_made_in_a_run_are_plain[{kind}]": f"{_WHAT} cannot be copied, run or none"
        for kind in _CLASSES
    }

    def build(self, kind: str) -> Any:
        pipeline = load(NAME, FOLDER, _CLASSES[kind])
        if kind == "order-2":
            from diffusers import HeunDiscreteScheduler

            pipeline.scheduler = HeunDiscreteScheduler.from_config(pipeline.scheduler.config)
        return pipeline

    def arguments(self, case: Case) -> dict[str, Any]:
        random = np.random.default_rng(1)
        found: dict[str, Any] = {
            "prompt": [PROMPTS[index % 2] for index in range(case.prompts)],
            "num_inference_steps": case.steps,
        }
        if case.kind in ("img2img", "inpaint"):
            shape = (case.prompts, 3, PIXELS, PIXELS)
            found |= {"image": self.tensor(random.uniform(size=shape), "float32"), "strength": 1.0}
        if case.kind == "inpaint":
            mask = torch.zeros(case.prompts, 1, PIXELS, PIXELS)
            mask[:, :, 16:48, 16:48] = 1
            found |= {"mask_image": mask, "height": PIXELS, "width": PIXELS}
        if case.kind == "rescale":
            found["guidance_rescale"] = 0.7
        return found


harness = RuntimeHarness()
