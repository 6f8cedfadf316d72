"""No built-in guidance rule waits for a device: with tensors that tell when somebody would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from unicb import (
    AdaptiveProjectedGuidance,
    ClassifierFreeZeroStarGuidance,
    GuidanceRescale,
    GuidanceRule,
    TangentialClassifierFreeGuidance,
    bind,
)
from unicb.callbacks import guidance_rules, linear
from unicb.testing import Case
from unicb_torch.harness import harness

#: What makes the host wait until a device has computed something.
WAITS = {
    *("item", "tolist", "cpu", "numpy", "equal", "allclose", "nonzero", "is_nonzero", "unique"),
    *("__bool__", "__float__", "__int__", "__index__", "__complex__", "__array__"),
}


class OnDevice(torch.Tensor):
    """A tensor that is computed elsewhere, and raises where its numbers are needed here."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        where = [str(x) for x in (*args[1:], *(kwargs or {}).values())] if name == "to" else []
        if name in WAITS or "cpu" in where:
            raise AssertionError(f"{name} waits for the device")
        return super().__torch_function__(func, types, args, kwargs or {})


class Plain(GuidanceRule):
    def combine(self, unconditional: Any, conditional: Any, scale: Any, step: Any) -> Any:
        assert type(unconditional) is type(conditional) is OnDevice
        return unconditional + (conditional - unconditional) * scale


RULES: dict[str, Callable[[], GuidanceRule]] = {
    "plain": Plain,
    "of a schedule, in an interval": lambda: Plain(linear(3.0, 6.0), (0.2, 0.6)),
    "adaptive": lambda: AdaptiveProjectedGuidance(5.0, eta=0.0, norm=2.5, momentum=-0.5),
    "zero star": lambda: ClassifierFreeZeroStarGuidance(5.0, zero_init_steps=0),
    "tangential": lambda: TangentialClassifierFreeGuidance(5.0),
    "rescaled": lambda: GuidanceRescale(Plain(5.0)),
}


def run(kind: str, rule: GuidanceRule | None, dtype: Any = torch.float32) -> Any:
    """A run whose denoiser answers from a device, up to the scheduler."""
    pipe = harness.build(kind).to(dtype=dtype)
    own = pipe.scheduler.step

    def answer(module: Any, args: Any, output: Any) -> Any:
        return output.as_subclass(OnDevice)

    def step(model_output: Any, *args: Any, **kwargs: Any) -> Any:
        assert type(model_output) is OnDevice
        return own(model_output.as_subclass(torch.Tensor), *args, **kwargs)

    pipe.scheduler.step = step
    handle = pipe.unet.conv_out.register_forward_hook(answer)  # below those of unicb
    try:
        case = Case(kind, prompts=2, steps=5)
        given = {
            name: value.to(dtype) if isinstance(value, torch.Tensor) else value
            for name, value in harness.arguments(case).items()
        }
        given |= {"generator": torch.Generator().manual_seed(0), "output_type": "latent"}
        callbacks: Any = {} if rule is None else bind(pipe, rule)
        return pipe(**given, guidance_scale=7.0, **callbacks)[0].float().numpy()
    finally:
        handle.remove()
        del pipe.scheduler.step


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("kind", ["text2img", "controlnet-img2img"])
def test_no_rule_waits(kind: str, name: str, dtype: Any) -> None:
    found = run(kind, RULES[name](), dtype)
    assert np.isfinite(found).all()
    assert not np.allclose(found, run(kind, None, dtype)) or name == "plain"


def test_every_built_in_rule_is_among_them() -> None:
    every = {
        kind
        for kind in vars(guidance_rules).values()
        if isinstance(kind, type) and issubclass(kind, GuidanceRule) and kind is not GuidanceRule
    }
    assert every <= {type(make()) for make in RULES.values()}


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: float(x.sum()),
        lambda x: bool(x.sum() > 0),
        lambda x: int(x.sum()),
        lambda x: x.cpu(),
        lambda x: x.to("cpu"),
        lambda x: x.to(device=torch.device("cpu")),
        lambda x: x.numpy(),
        lambda x: x.tolist(),
        lambda x: np.asarray(x),
        lambda x: x.nonzero(),
        lambda x: torch.equal(x, x),
    ],
)
def test_a_rule_that_waits_is_found(wait: Callable[[Any], Any]) -> None:
    class Waiting(Plain):
        def combine(self, unconditional: Any, conditional: Any, scale: Any, step: Any) -> Any:
            wait(unconditional)
            return super().combine(unconditional, conditional, scale, step)

    with pytest.raises(AssertionError, match="waits for the device"):
        run("text2img", Waiting())
