"""The runtime that is installed here, and a harness of the suite on what was exported for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
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
STEPS = 6
#: What float32 makes of a run of so many steps on another runtime, in standard deviations of the
#: latents. Measured: at most 7e-5.
NEAR = 5e-4
Array = npt.NDArray[Any]

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


def run(call: Callable[..., Any], prompt: Any = PROMPTS, **more: Any) -> Array:
    """The final latents, from the same noise each time."""
    more = {"output_type": "latent", "guidance_scale": 5.0, **more}
    generator = torch.Generator().manual_seed(0)
    array: Array = call(prompt, num_inference_steps=STEPS, generator=generator, **more)[0].numpy()
    return array


def apart(found: Array, expected: Array) -> float:
    """The largest difference, in standard deviations."""
    return float(np.abs(found - expected).max() / expected.std())


@contextmanager
def rows_of(pipe: Any, change: Callable[[int, Array], Array] | None = None) -> Iterator[list[int]]:
    """The rows of each call of the denoiser, as the runtime gets them.

    Args:
        pipe: the pipeline.
        change: given the number of a call and what it answers, returns what the loop gets.
    """
    rows: list[int] = []

    def around(call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        rows.append(len(args[0] if args else kwargs["sample"]))
        out = call(*args, **kwargs)
        if change is None:
            return out
        return (torch.from_numpy(change(len(rows) - 1, out[0].numpy())),)

    undo = harness.spy(pipe, around)
    try:
        yield rows
    finally:
        undo()
