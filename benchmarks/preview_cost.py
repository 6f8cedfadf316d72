"""Measure what a preview costs at each step, next to the function that the frameworks' guides give.

    python benchmarks/preview_cost.py --framework torch

A bare denoising loop on a CPU; writes docs/benchmarks/preview_cost-<framework>.json. Takes about
two minutes on two idle cores.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from _common import Figure, figure, interleaved, parser, write
from _frameworks import Framework, framework
from _loop import Timed, denoising_loop, natural_latents

from unicb import Preview, bind
from unicb.latents import LatentFormat, builtin_formats

TITLE = "What a preview costs"
METHOD = """\
A bare denoising loop on a CPU, on latents `[1, 4, n, n]` (Euler) and `[1, 16, n, n]` (flow
matching), float32, without previews and with one PNG file at each step from: the function in the
frameworks' guides to callbacks ("Display image after each generation step": on MindSpore as mindone
has it; for 16 channels with 16 weights), unicb's `Preview` of the noisy latents, which is the same
work, and unicb's `Preview` as it is by default, denoised. All four run in turn in every round.

- **added time** is that of the whole run until all of its files are there, `bind` included, less
  that of the run without previews, by the number of steps. Each run is checked to have written a
  file for every step.
- **processor time** is added likewise, over all threads; what else the machine does hardly matters.
- **on the loop's thread** is the time inside the callback: the median over all steps but the first,
  which prepares, and the last, which waits for the files. These two are given by themselves.
- **ratios** are to the guide's function in the same round.

The denoiser's work at each step is matrix products on one core, so that the other one is free, as
the CPU is while a GPU computes. 20 ms is less than a step of a large model takes on a large GPU:
with more, the thread that writes has more time. With none, it has the end of the run only.
The denoised picture has amplitudes that fall as 1/f, as those of photographs do.
"""

#: The guide's weights for SDXL: rows for red, green, blue.
GUIDE_WEIGHTS = np.array([(60, -60, 25, -70), (60, -5, 15, -50), (60, 10, -5, -35)], dtype=float)
GUIDE_BIASES = np.array([150, 140, 130], dtype=float)

#: Above these, a preview costs too much.
WHOLE_AT_MOST, THREAD_AT_MOST = 0.5, 0.05


class Run(NamedTuple):
    """A run holds its seconds, those of processor time in it, and those of each call of its
    callback."""

    whole: float
    processor: float
    callback: list[float]

    @property
    def thread(self) -> float:
        """Return the median seconds of the callbacks but the first, which prepares, and the last,
        which waits.

        The median, because what else a machine does makes some of them longer.
        """
        return float(np.median(self.callback[1:-1]))


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._whole, self._processor = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """Return the seconds since the clock began, and those of this process's processor time."""
        return time.perf_counter() - self._whole, time.process_time() - self._processor


class Scene:
    """A scene is a kind of latents, and a loop that denoises them.

    Args:
        fw: the framework.
        channels: 4 as SDXL has them, or 16 as FLUX has them.
        size: height and width of the latents.
        steps: of a run.
        work: what the denoiser does at each step, beside giving the right answer.
    """

    def __init__(
        self,
        fw: Framework,
        channels: Literal[4, 16],
        size: int,
        steps: int,
        work: Callable[[], None],
    ) -> None:
        shape = (1, channels, size, size)
        clean = natural_latents(shape)
        noise = np.random.default_rng(1).normal(size=shape).astype(np.float32)
        self._fw, self.steps = fw, steps
        if channels == 4:
            betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
            self._scheduler = fw.library.EulerDiscreteScheduler(**betas)
            self.form: LatentFormat = builtin_formats()["sdxl"]
            self.weights, self.biases = GUIDE_WEIGHTS, GUIDE_BIASES
        else:
            self._scheduler = fw.library.FlowMatchEulerDiscreteScheduler(shift=3.0)
            self.form = builtin_formats()["flux"]
            self.weights = np.asarray(self.form.factors).T * 127.5
            self.biases = (np.asarray(self.form.bias) + 1) * 127.5
        # The answer that leads straight to the clean latents: the noise, or the velocity.
        answer = fw.tensor(noise if channels == 4 else noise - clean)
        self._scheduler.set_timesteps(steps)
        sigma = float(self._scheduler.sigmas[0])
        self._start = fw.tensor(clean + sigma * noise if channels == 4 else noise)

        def denoise(_: Any, __: Any) -> Any:
            work()
            return answer

        self.pipeline = denoising_loop(fw.library, self._scheduler, denoise)

    def run(self, **callbacks: Any) -> None:
        self._scheduler.set_timesteps(self.steps)
        self.pipeline(self._start, self._scheduler.timesteps, **callbacks)

    def guide(self, folder: Path, pipeline: Any, step: int, _: Any, tensors: Any) -> Any:
        """Return the callback of the guides."""
        image = self._fw.latents_to_rgb(tensors["latents"], self.weights, self.biases)
        image.save(folder / f"{step}.png")
        return tensors


def with_callback(scene: Scene, bound: Callable[[Path], dict[str, Any]]) -> Run:
    """Make one run with previews, all of whose files must be there."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clock = Clock()
        keywords = bound(folder)
        timed = Timed(keywords["callback_on_step_end"])
        scene.run(**{**keywords, "callback_on_step_end": timed})
        whole, processor = clock.read()
        written = len(list(folder.glob("*.png")))
    if written != scene.steps:
        raise SystemExit(
            f"only {written} of {scene.steps} previews were written, so the work is not the same: "
            "take no more --steps than previews may wait for their file"
        )
    return Run(whole, processor, timed.seconds)


def without_callback(scene: Scene) -> Run:
    clock = Clock()
    scene.run()
    return Run(*clock.read(), [])


def contestants(scene: Scene) -> dict[str, Callable[[], Run]]:
    def guide(folder: Path) -> dict[str, Any]:
        return {"callback_on_step_end": partial(scene.guide, folder)}

    def unicb(source: Literal["noisy", "denoised"], folder: Path) -> dict[str, Any]:
        preview = Preview(folder / "{step}.png", source=source, factors=scene.form)
        return dict(bind(scene.pipeline, preview))

    return {
        "none": partial(without_callback, scene),
        "guide": partial(with_callback, scene, guide),
        "noisy": partial(with_callback, scene, partial(unicb, "noisy")),
        "denoised": partial(with_callback, scene, partial(unicb, "denoised")),
    }


def measure(scene: Scene, case: str, repetitions: int) -> list[Figure]:
    """Measure all figures of one scene, the ratios first."""
    runs = interleaved(contestants(scene), repetitions, case)
    bare = runs.pop("none")

    def added(of: str) -> dict[str, list[float]]:
        """Return the seconds of each step beyond those of the run without previews, by round."""
        return {
            name: [
                (getattr(run, of) - getattr(without, of)) / scene.steps
                for run, without in zip(found, bare, strict=True)
            ]
            for name, found in runs.items()
        }

    thread = {name: [run.thread for run in found] for name, found in runs.items()}
    quantities = (
        ("added time", added("whole"), WHOLE_AT_MOST),
        ("added processor time", added("processor"), None),
        ("on the loop's thread", thread, THREAD_AT_MOST),
    )
    figures = [
        figure(case, f"{name}: {what}", "ratio", np.divide(seconds[name], seconds["guide"]), target)
        for name in ("noisy", "denoised")
        for what, seconds, target in quantities
    ]
    figures += [
        figure(case, f"{name}: {what}, each step", "ms", np.multiply(seconds[name], 1e3))
        for name in runs
        for what, seconds, _ in quantities
    ]
    figures += [
        figure(
            case, f"{name}: {which} callback", "ms", [1e3 * run.callback[i] for run in runs[name]]
        )
        for name in ("noisy", "denoised")
        for which, i in (("first", 0), ("last", -1))
    ]
    whole = [1e3 * run.whole / scene.steps for run in bare]
    return [*figures, figure(case, "no previews: each step", "ms", whole)]


def calibrated(fw: Framework, milliseconds: float) -> Callable[[], None]:
    """Make work that takes about so long. The number of products is fixed here, once, for all
    runs."""
    if milliseconds <= 0:
        return lambda: None
    products = fw.work(384)
    products(3)
    times = []
    for _ in range(7):
        began = time.perf_counter()
        products(5)
        times.append((time.perf_counter() - began) / 5)
    count = max(1, round(milliseconds / 1e3 / float(np.median(times))))
    return partial(products, count)


def main(arguments: Sequence[str] | None = None) -> int:
    made = parser(__doc__)
    made.add_argument("--size", type=int, default=128, help="of the latents; default: 128")
    made.add_argument("--steps", type=int, default=16, help="of a run, from 3; default: 16")
    made.add_argument(
        "--work", type=float, nargs="+", default=[20.0, 0.0], metavar="MS",
        help="milliseconds of work at each step; default: 20 0",
    )  # fmt: skip
    options = made.parse_args(arguments)
    if options.steps < 3:
        made.error("--steps must be at least 3: the first and the last are measured by themselves")
    fw = framework(options.framework)
    figures: list[Figure] = []
    for milliseconds in options.work:
        work = calibrated(fw, milliseconds)
        channels: Literal[4, 16]
        for channels in (4, 16):
            scene = Scene(fw, channels, options.size, options.steps, work)
            case = f"{channels} channels, {milliseconds:g} ms of work"
            figures += measure(scene, case, options.repetitions)
    settings = {
        "height and width": options.size,
        "steps": options.steps,
        "ms of work": options.work,
        "rounds": options.repetitions,
    }
    write(options.out, "preview_cost", TITLE, METHOD, fw.name, settings, figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
