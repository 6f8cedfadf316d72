"""CFGCutoff beside what else shapes a run: other conditions, adapters, several prompts.

A cut composes with a feature if it still does what it promises: the same latents as when both
halves are computed to the end and the conditional one is used for both, at half the rows, and
nothing of it left on the pipeline. ``check_cut`` says so for one pipeline and one way to call it;
the other files ``test_composes_*.py`` use it too. docs/composes.md has the list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from unicb import CFGCutoff, bind
from unicb.pipelines import facts_for
from unicb.testing import Case
from unicb_torch.harness import harness

#: Calls a pipeline, always the same, with these keywords added; returns the final latents.
Call = Callable[..., npt.NDArray[Any]]
STEPS = 4
EXACT = 1e-4
#: What guidance must change, or the test would prove nothing.
DIFFERENT = 1e-3


# --------------------------------------------------------------------------- what is checked


def call_of(pipe: Any, kind: str, prompts: int = 1, images: int = 1, **more: Any) -> Call:
    """A call of one of the harness' pipelines, with arguments added to or instead of its own."""
    case = Case(kind, prompts=prompts, images_per_prompt=images, steps=STEPS)
    made = {
        **harness.arguments(case),
        "guidance_scale": 5.0,
        "num_images_per_prompt": images,
        **more,
    }
    return seeded(pipe, {name: value for name, value in made.items() if value is not None})


def seeded(pipe: Any, keywords: Mapping[str, Any]) -> Call:
    def call(**more: Any) -> npt.NDArray[Any]:
        generator = torch.Generator().manual_seed(0)
        out = pipe(**{**keywords, **more}, generator=generator, output_type="latent")
        array: npt.NDArray[Any] = out[0].numpy()
        return array

    return call


def models_of(pipe: Any) -> dict[str, torch.nn.Module]:
    return {k: v for k, v in pipe.components.items() if isinstance(v, torch.nn.Module)}


def traces(pipe: Any) -> object:
    """Attributes and hooks of the pipeline and of every module in it."""
    found: dict[str, object] = {"": (sorted(vars(pipe)), getattr(pipe, "_guidance_scale", None))}
    for component, model in models_of(pipe).items():
        for name, module in model.named_modules():
            has = vars(module)
            registry = has.get("_diffusers_hook")
            hooks = [] if registry is None else list(registry.hooks)
            torchs = len(has["_forward_hooks"]), len(has["_forward_pre_hooks"])
            compiled = has.get("_compiled_call_impl")
            found[f"{component}.{name}"] = (sorted(has), hooks, torchs, compiled)
    return found


@contextmanager
def rows_seen(pipe: Any) -> Iterator[list[int]]:
    """Rows of each call that reaches the first layer of a denoiser, below any hook on it."""
    rows: list[int] = []
    layers = {getattr(model, "_orig_mod", model) for model in denoisers(pipe)}
    handles = [
        first_layer(model).register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
        for model in layers
    ]
    try:
        yield rows
    finally:
        for handle in handles:
            handle.remove()


def denoisers(pipe: Any) -> list[torch.nn.Module]:
    facts = facts_for(pipe)
    assert facts is not None
    models = [getattr(pipe, name, None) for name in facts.denoisers]
    return [model for model in models if model is not None]


def first_layer(model: torch.nn.Module) -> torch.nn.Module:
    names = ("conv_in", "proj_in", "patch_embed", "patch_embedding", "x_embedder")
    return next(getattr(model, name) for name in names if hasattr(model, name))


class Reference:
    """Both halves computed to the end, and from the cut on the conditional one used for both.

    It changes the denoiser's output through torch's own hooks, which unicb does not use.
    """

    def __init__(self, pipe: Any, last: int, at_cut: Callable[[], None] | None) -> None:
        """``last``: index of the last step with guidance."""
        facts = facts_for(pipe)
        assert facts is not None
        self.facts, self.last, self.at_cut = facts, last, at_cut
        self.active = False
        self.calls: list[Any] = []

    def step_end(self, pipe: Any, index: int, _: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        self.calls.clear()
        starts = index == self.last
        self.active = self.last <= index < pipe.num_timesteps - 1
        if starts and self.at_cut is not None:
            self.at_cut()
        return tensors

    def change(self, model: Any, args: Any, out: Any) -> Any:
        first = out if isinstance(out, torch.Tensor) else out[0]
        order = self.facts.order
        at = order.index("conditional")
        if self.facts.cfg == "batch":
            changed = torch.cat([first.chunk(len(order))[at]] * len(order))
        else:
            self.calls.append(first)
            changed = self.calls[at] if len(self.calls) > at else first
        if not self.active:
            return out
        if isinstance(out, torch.Tensor):
            return changed
        return type(out)(changed) if hasattr(out, "sample") else (changed, *out[1:])

    def prepare(self, model: Any, args: Any, keywords: dict[str, Any]) -> Any:
        """Called before the denoiser, as torch's hooks are."""

    def run(self, pipe: Any, call: Call) -> npt.NDArray[Any]:
        handles = []
        for model in denoisers(pipe):
            handles.append(model.register_forward_pre_hook(self.prepare, with_kwargs=True))
            handles.append(model.register_forward_hook(self.change))
        try:
            return call(callback_on_step_end=self.step_end)
        finally:
            for handle in handles:
                handle.remove()


def check_cut(
    pipe: Any,
    call: Call,
    index: int = 1,
    last: int | None = None,
    at_cut: Callable[[], None] | None = None,
    reference: type[Reference] = Reference,
    rows: list[int] | None = None,
) -> list[int]:
    """Assert that a cut after step ``index`` is exact, saves half and leaves nothing behind.

    Returns the rows of the denoiser's calls in the cut run.

    Args:
        last: index of the last step with guidance, where that is not ``index``.
        at_cut: what the reference does at the cut beside.
        rows: of the denoiser's calls, where these are not the run's steps in order.
    """
    last = index if last is None else last
    with rows_seen(pipe) as full:
        plain = call()
    before = traces(pipe)
    expected = reference(pipe, last, at_cut).run(pipe, call)
    assert error(plain, expected) > DIFFERENT, "guidance does nothing in this case"
    with rows_seen(pipe) as seen:
        cut = call(**bind(pipe, CFGCutoff(cutoff_step_index=index)))
    print(f"difference {error(cut, expected):.1e}, effect {error(plain, expected):.1e}")
    assert error(cut, expected) < EXACT
    assert traces(pipe) == before
    assert np.array_equal(call(), plain)
    assert seen == (rows or halved(pipe, full, last)), full
    return seen


def halved(pipe: Any, full: list[int], last: int) -> list[int]:
    """The rows of a cut run, from those of a plain one: one call a step or two."""
    facts = facts_for(pipe)
    assert facts is not None
    if facts.cfg == "batch":
        guided = full[: last + 1]
        return guided + [rows // len(facts.order) for rows in full[last + 1 :]]
    guided = full[: 2 * (last + 1)]
    return guided + full[len(guided) :: 2]


def error(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Largest difference, in standard deviations."""
    return float(np.abs(a - b).max() / b.std())


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["text2img", "xl-text2img", "ip-adapter", "inpaint", "controlnet"])
def test_several_images_of_several_prompts(kind: str) -> None:
    pipe = harness.build(kind)
    rows = check_cut(pipe, call_of(pipe, kind, prompts=2, images=3))
    assert rows == [12, 12, 6, 6]
