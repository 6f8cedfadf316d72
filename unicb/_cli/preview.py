"""Show a trajectory, as the Trajectory callback writes it, in one picture or as an animation.

The pictures are of the latents as they are, with the noise that is left in each step.

Exit code: 0 if the picture was written, 2 if not.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from unicb.callbacks import load_trajectory
from unicb.checks import whole_number
from unicb.host import HostOps
from unicb.latents import ColourMap, LatentFormat
from unicb.latents.formats import builtin_formats
from unicb.ops import TensorOps
from unicb.sinks import Animation, ContactSheet, PreviewFrame

_ANIMATED = (".webp", ".gif")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    formats = ", ".join(builtin_formats())
    parser.add_argument("file", metavar="FILE", type=Path, help="a .npz or .safetensors")
    add = parser.add_argument
    add(
        "--out",
        type=Path,
        help="where to: .webp or .gif is an animation, .png or another picture a contact sheet; "
        "default: FILE with .png",
    )
    add(
        "--every",
        type=int,
        default=1,
        help="show one in so many of the recorded steps, and the last",
    )
    colours = parser.add_mutually_exclusive_group()
    colours.add_argument(
        "--format", metavar="NAME", help=f"of the latents: {formats}; default: by their channels"
    )
    colours.add_argument("--factors", metavar="FILE.toml", help="a file with the format")
    add("--layout", default="bchw", help="the latents' axes, as in unicb.latents.Layout")
    add("--cells", type=int, nargs="+", metavar="N", help="height and width, of packed latents")
    add("--size", type=int, help="pixels of each picture's longer side; default: one for each cell")
    add("--columns", type=int, help="steps side by side in a contact sheet")


def run(options: argparse.Namespace) -> int:
    """Returns 0; raises on any error."""
    recorded = load_trajectory(options.file)
    latents, count = recorded.latents, len(recorded.steps)
    if not count:
        raise ValueError(
            f"{str(options.file)!r} has no step: its run ended before the first was over"
        )
    colours = ColourMap(_format(options, latents), options.layout)
    every = whole_number("--every", options.every)
    out = options.out or options.file.with_suffix(".png")
    sink = _sink(out, options)
    for number in sorted({*range(0, count, every), count - 1}):
        shown = _pictures(colours, latents[number], options.cells)
        about = int(recorded.steps[number]), recorded.num_timesteps
        sink(PreviewFrame(*about, float(recorded.timesteps[number]), shown))
    sink.close()
    print(f"{out}: {colours.form.name}, {count} steps recorded of {recorded.num_timesteps}")
    return 0


def _sink(out: Path, options: argparse.Namespace) -> Animation | ContactSheet:
    if out.suffix.lower() in _ANIMATED:
        return Animation(out, size=options.size)
    return ContactSheet(out, options.columns, size=options.size)


def _format(options: argparse.Namespace, latents: npt.NDArray[Any]) -> LatentFormat:
    known = builtin_formats()
    if options.factors is not None:
        return LatentFormat.load(options.factors)
    if options.format is not None:
        if options.format not in known:
            raise ValueError(f"no format {options.format!r}; there are: {', '.join(known)}")
        return known[options.format]
    axis = options.layout.find("c") if "(" not in options.layout else -1
    channels = latents.shape[1:][axis] if 0 <= axis < latents.ndim - 1 else None
    fitting = [name for name, form in known.items() if form.latent_channels == channels]
    if len(fitting) == 1:
        return known[fitting[0]]
    raise ValueError(
        f"latents of shape {latents.shape[1:]} do not tell their format: say it by --format, one "
        f"of {', '.join(fitting or known)}, or by --factors"
    )


def _pictures(
    colours: ColourMap, latents: npt.NDArray[Any], cells: Sequence[int] | None
) -> list[Image.Image]:
    # Half-precision numbers are no faster on the host.
    ops = cast(TensorOps, HostOps())  # HostOps lacks concat, which making colours does not need
    made = colours.rgb(latents.astype(np.float32), ops, cells)
    return [Image.fromarray(picture) for picture in made.pixels]
