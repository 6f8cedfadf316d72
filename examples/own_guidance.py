"""A guidance method of your own: AdaptiveGuidance, on the shapes checkpoint.

    python examples/own_guidance.py --framework torch --out out/own_guidance.png

As in Castillo et al., "Adaptive Guidance: Training-free Acceleration of Conditional Diffusion
Models" (2023, arXiv:2312.12487): late in a run, the prediction with the prompt and the one without
it point the same way, and the latter is not needed. Prints for some thresholds how many steps are
guided, and how far each picture is from that of full guidance, in levels of 255.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from contact_sheet import contact_sheet
from PIL import Image
from quickstart import CHECKPOINT, pipeline_class, seeded_latents

from unicb import GuidanceRule, RuleStep, Step, bind
from unicb.tensors import dot


@dataclass
class Seen:
    """Hold what a run has shown: the cosine of a step, and that of the step before, being read."""

    cosine: Any = None
    reading: Callable[[], Any] | None = None
    cut_after: int | None = None


class AdaptiveGuidance(GuidanceRule):
    """Plain guidance, until the two predictions of all prompts point the same way.

    What a step shows is read at the end of the next one, beside the run, so that no device waits.

    Args:
        threshold: of the cosine between the two, above which guidance ends.
        scale: as for every rule.
    """

    def __init__(self, threshold: float, scale: Any = None) -> None:
        super().__init__(scale)
        self.threshold = threshold

    def on_bind(self, target: Any) -> None:
        super().on_bind(target)
        target.guidance.check_cut()

    def combine(self, unconditional: Any, conditional: Any, scale: Any, step: RuleStep) -> Any:
        pairs = (unconditional, conditional), (unconditional,) * 2, (conditional,) * 2
        uc, uu, cc = (dot(step.ops, *pair, average=True) for pair in pairs)
        step.run.state(self, Seen).cosine = uc / (uu * cc) ** 0.5
        return unconditional + (conditional - unconditional) * scale

    def on_step_end(self, step: Step) -> None:
        seen = step.run.state(self, Seen)
        before, seen.reading = seen.reading, None
        if before is not None and before().min() > self.threshold and step.cut_guidance():
            seen.cut_after = step.index
        elif seen.cosine is not None and seen.cut_after is None:
            seen.reading = step.aside(lambda ops, x: ops.to_numpy(x), seen.cosine)


class Noted(AdaptiveGuidance):
    """Note how many steps of the last run were guided."""

    guided = 0

    def on_run_end(self, run: Any) -> None:
        last = run.state(self, Seen).cut_after
        self.guided = 1 + (run.index if last is None else last)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--framework", choices=["torch", "mindspore"], default="torch")
    parser.add_argument("--prompt", default="a red star on a white background")
    parser.add_argument("--out", type=Path, default=Path("out/own_guidance.png"))
    parser.add_argument("--steps", type=int, default=25, help="default: 25")
    parser.add_argument("--guidance", type=float, default=7.0, help="default: 7.0")
    parser.add_argument(
        "--thresholds", type=float, nargs="+", default=[0.999, 0.9995, 0.9997, 0.9998]
    )
    parser.add_argument("--seed", type=int, default=3, help="default: 3")
    options = parser.parse_args()
    pipe = pipeline_class(options.framework).from_pretrained(CHECKPOINT)
    pipe.set_progress_bar_config(disable=True)

    def picture(*callbacks: Any) -> Image.Image:
        image: Image.Image = bind(pipe, *callbacks)(
            options.prompt,
            num_inference_steps=options.steps,
            guidance_scale=options.guidance,
            latents=seeded_latents(pipe, options.seed),
        )[0][0]
        return image

    pictures = [("full guidance", picture())]
    reference = np.asarray(pictures[0][1], float)
    print(f"{'guided steps':>12}{'threshold':>12}{'difference':>12}")
    for threshold in options.thresholds:
        rule = Noted(threshold)
        image = picture(rule)
        away = np.abs(np.asarray(image, float) - reference).mean()
        print(f"{rule.guided:12}{threshold:12.4f}{away:12.1f}")
        pictures.append((f"{threshold:g}: {rule.guided} steps", image))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(pictures).save(options.out, optimize=True)
    print(f"look at {options.out}")


if __name__ == "__main__":
    main()
