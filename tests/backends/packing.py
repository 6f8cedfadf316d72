"""What the frameworks' own pipelines say of where their latents are."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from unicb import LatentFormat, PipelineFacts
from unicb.latents import ColourMap, size_of_latents
from unicb.pipelines import facts_for, known_pipelines

#: Channel 0 is red, 1 is green, 2 is blue.
RGB = LatentFormat(
    name="rgb",
    latent_channels=4,
    spatial_scale=8,
    factors=((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.0, 0.0, 0.0)),
    bias=(0.0, 0.0, 0.0),
    output_range=(0.0, 255.0),
    source="made up",
)
SCALE = 16
ROWS, CHANNELS, HEIGHT, WIDTH = 2, 4, 4, 6


def facts_named(name: str) -> PipelineFacts:
    found = facts_for(type(name, (), {})())
    assert found is not None
    return found


def packed_classes() -> list[str]:
    """Known classes whose latents are tokens or patches, and that pack them themselves."""
    return [name for name in _classic() if "(" in facts_named(name).layout]


def sized_classes() -> list[str]:
    """Known classes whose latents' size is held by locals of their loops."""
    return [name for name in _classic() if facts_named(name).size_from]


def _classic() -> list[str]:
    """Known classes but for those that are made of blocks: `zoo.modular` runs these."""
    return [name for name in known_pipelines() if not name.endswith("ModularPipeline")]


def packings(kind: Any) -> list[Callable[[Any], Any]]:
    """The class's own ways to pack, from ``[b, c, t, h, w]`` to what its loop has."""
    if hasattr(kind, "_patchify_latents") and hasattr(kind, "_pack_latents"):
        return [lambda x: kind._pack_latents(kind._patchify_latents(x[:, :, 0]))]
    names = ("_pack_latents", "_pack_latents_no_patch", "_patchify_latents")
    return [_packing(getattr(kind, name)) for name in names if hasattr(kind, name)]


def _packing(function: Callable[..., Any]) -> Callable[[Any], Any]:
    names = list(inspect.signature(function).parameters)

    def pack(x: Any) -> Any:
        if "patch_size_t" in names:
            return function(x, 1, 1)
        offered = {
            "self": SimpleNamespace(patch_size=2),  # for those that are no static methods
            "batch_size": ROWS,
            "num_channels_latents": CHANNELS,
            "height": HEIGHT,
            "width": WIDTH,
            "patch_size": 2,
            "layers": x.shape[2],
        }
        latents = x.swapaxes(1, 2) if "layers" in names else x[:, :, 0]
        given = {name: offered[name] for name in names if name in offered}
        return function(latents=latents, **given)

    return pack


def cells(frames: int) -> npt.NDArray[np.float32]:
    """Latents ``[b, c, t, h, w]``."""
    shape = (ROWS, CHANNELS, frames, HEIGHT, WIDTH)
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)


def assert_colours_in_place(kind: Any, name: str, backend: Any, tensor: Callable[..., Any]) -> None:
    """What the class packs by its own methods is shown where it was."""
    facts = facts_named(name)
    x = cells(frames=3 if "t" in facts.layout else 1)
    ways = packings(kind)
    assert ways
    for pack in ways:
        latents = pack(tensor(x))
        size = x.shape[-3:] if "+" in facts.layout else x.shape[-2:]
        colours = ColourMap(RGB, facts.layout)
        pixels, finite = colours.rgb(latents, backend.ops, size, frames="animation")
        assert finite
        assert np.array_equal(pixels, x[:, :3].transpose(0, 2, 3, 4, 1))


def assert_size_as_unpacked(kind: Any, name: str, backend: Any, tensor: Callable[..., Any]) -> None:
    """The locals and the divisor give the size that the class's own ``_unpack_latents`` gives
    itself, for pixels that are no multiple of a token too."""
    facts = facts_named(name)
    x = cells(frames=1)
    pack, pixels = packings(kind)[0], SCALE // 2 if "/2" in facts.pixels_per_cell else SCALE
    # QwenImage21 rounds pixels to two cells before its loop.
    extra = 0 if pack(tensor(x)).shape[1] == HEIGHT * WIDTH else pixels // 2
    asked = [n * pixels + extra for n in (HEIGHT, WIDTH)]
    unpacked = kind._unpack_latents(pack(tensor(x)), *asked, vae_scale_factor=SCALE)
    pipeline = SimpleNamespace(vae_scale_factor=SCALE)
    size = size_of_latents(pipeline, facts, dict(zip(facts.size_from, asked, strict=True)))
    assert size == tuple(unpacked.shape[-2:])


def unpack_names(kind: Any) -> list[str]:
    """Arguments of the class's own ``_unpack_latents``; none if it has none."""
    function = getattr(kind, "_unpack_latents", None)
    names = [] if function is None else list(inspect.signature(function).parameters)
    return names if {"patch_size", "layers"}.isdisjoint(names) else []


def missing_locals(kind: type) -> set[str]:
    """Names of ``size_from`` that a function which calls the callback has no local of."""
    loops = _loops(kind)
    assert loops, f"nothing in {kind.__name__} calls callback_on_step_end, or steps its scheduler"
    wanted = set(facts_named(kind.__name__).size_from)
    return {name for loop in loops for name in wanted - _locals(loop)}


def _loops(kind: type) -> list[ast.FunctionDef]:
    module = ast.parse(inspect.getsource(sys.modules[kind.__module__]))
    found = [
        function
        for own in module.body
        if isinstance(own, ast.ClassDef) and own.name == kind.__name__
        for function in own.body
        if isinstance(function, ast.FunctionDef)
    ]
    return [function for function in found if _calls_back(function)]


def _calls_back(function: ast.FunctionDef) -> bool:
    """Whether a step ends in it."""
    calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
    names = [f.id for f in calls if isinstance(f, ast.Name)]
    return "callback_on_step_end" in names or "self.scheduler.step" in map(ast.unparse, calls)


def _locals(function: ast.FunctionDef) -> set[str]:
    every = ast.walk(function)
    return {
        node.arg if isinstance(node, ast.arg) else node.id
        for node in every
        if isinstance(node, ast.arg)
        or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    }
