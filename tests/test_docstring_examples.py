"""Every public name has an example in its docstring, and it runs on the reference backend."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapted import AdaptedPipeline
from test_fit import OwnedVAE
from test_initial import Starts

import unicb
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline, ToyScheduler, ToyUNet

NAMES = [name for name in unicb.__all__ if not name.startswith("__")]
#: In the examples, ``pipe`` is a pipeline, and unicb's names are imported. These need more of it.
PIPES: dict[str, Callable[[], Any]] = {
    "IPAdapterScale": AdaptedPipeline,
    "IPAdapterCutoff": AdaptedPipeline,
    "initial_latents": Starts,
    "fit_rgb_factors": lambda: with_vae(ToyPipeline()),
}


def with_vae(pipe: Any) -> Any:
    pipe.vae = OwnedVAE()
    return pipe


def of_a_loop() -> dict[str, Any]:
    """Return what the example of Loop has besides."""

    class UNet(ToyUNet):
        def forward(self, *tensors: Any, return_dict: bool, **more: Any) -> Any:
            return (super().forward(*tensors, **more),)

    class Euler(ToyScheduler):
        timesteps: Any

        def step(self, *tensors: Any, return_dict: bool) -> Any:
            return (super().step(*tensors),)

    unet, scheduler = UNet(), Euler()
    scheduler.timesteps = scheduler.set_timesteps(4)
    embeds = StrictTensor(np.zeros((1, 4), np.float32))
    latents = StrictTensor(np.ones((1, 4, 8, 8), np.float32))
    return {"unet": unet, "scheduler": scheduler, "embeds": embeds, "latents": latents}


@pytest.mark.parametrize("name", NAMES)
def test_example_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {public: getattr(unicb, public) for public in NAMES}
    names["pipe"] = PIPES.get(name, ToyPipeline)()
    names |= of_a_loop() if name == "Loop" else {}
    found = doctest.DocTestParser().get_doctest(
        inspect.getdoc(names[name]) or "", names, name, None, None
    )
    assert found.examples, f"{name} has no example"
    said: list[str] = []
    doctest.DocTestRunner(verbose=False).run(found, out=said.append, clear_globs=False)
    assert not said, "".join(said)
