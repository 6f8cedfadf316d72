"""CFGCutoff beside what else shapes a run: other conditions, adapters, several prompts.

A cut composes with a feature if it still does what it promises: the same latents as when both
halves are computed to the end and the conditional one is used for both, at half the rows, and
nothing of it left on the pipeline. ``check_cut`` says so for one pipeline and one way to call it;
the other files ``test_composes_*.py`` use it too. docs/composes.md has the list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from unicb import CFGCutoff, UnsupportedPipelineError, bind
from unicb.pipelines import facts_for
from unicb.testing import Case
from unicb_torch.harness import arguments, harness
from unicb_torch.pipelines import IMAGE_WIDTH, PIXELS, POOLED_WIDTH, TEXT_WIDTH, _ip_adapter

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
    made = {**arguments(case), "guidance_scale": 5.0, "num_images_per_prompt": images, **more}
    return seeded(pipe, {name: value for name, value in made.items() if value is not None})


def seeded(pipe: Any, keywords: Mapping[str, Any]) -> Call:
    def call(**more: Any) -> npt.NDArray[Any]:
        generator = torch.Generator().manual_seed(0)
        out = pipe(**keywords, **more, generator=generator, output_type="latent")
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


# --------------------------------------------------------------------------- conditions


@pytest.mark.parametrize("kind", ["rescale", "xl-rescale"])
def test_guidance_rescale(kind: str) -> None:
    """The loop scales its sum to the standard deviation of the conditional half. What that does
    to a sum of two equal halves is the loop's affair, and the same in both runs."""
    pipe = harness.build(kind)
    check_cut(pipe, call_of(pipe, kind, prompts=2))


@pytest.mark.parametrize("kind", ["ip-adapter", "xl-ip-adapter"])
def test_ip_adapter(kind: str) -> None:
    pipe = harness.build(kind)
    pipe.set_ip_adapter_scale(0.6)
    check_cut(pipe, call_of(pipe, kind))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", ["ip-adapter", "xl-ip-adapter"])
def test_several_ip_adapters(kind: str, masked: bool) -> None:
    """Each with a scale of its own, and with as many pictures as there are rows in a guided batch;
    with masks too, which have a first axis that is no batch."""
    pipe = harness.build(kind)
    del pipe.unet.encoder_hid_proj
    pipe.unet.encoder_hid_proj = None
    pipe.unet.set_default_attn_processor()
    pipe.unet._load_ip_adapter_weights([_ip_adapter(pipe.unet), _ip_adapter(pipe.unet)])
    pipe.set_ip_adapter_scale([0.3, 0.9])
    embeds = [normal(2, 1, IMAGE_WIDTH), normal(2, 2, IMAGE_WIDTH, seed=2)]
    more: dict[str, Any] = {"ip_adapter_image_embeds": embeds}
    if masked:
        half = torch.zeros(1, 2, PIXELS, PIXELS)
        half[:, 0, :, : PIXELS // 2] = half[:, 1, :, PIXELS // 2 :] = 1
        more["cross_attention_kwargs"] = {"ip_adapter_masks": [half[:, :1], half]}
    check_cut(pipe, call_of(pipe, kind, **more))


@pytest.mark.parametrize("kind", ["controlnet-multi", "xl-controlnet-multi"])
def test_several_controlnets(kind: str) -> None:
    """With scales of their own; the second one stops before the cut, or starts after it."""
    pipe = harness.build(kind)
    scales = {"controlnet_conditioning_scale": [0.8, 0.4]}
    for start, end in (([0.0, 0.0], [1.0, 0.25]), ([0.0, 0.75], [1.0, 1.0])):
        guided = {"control_guidance_start": start, "control_guidance_end": end}
        check_cut(pipe, call_of(pipe, kind, images=2, **scales, **guided))


@pytest.mark.parametrize(
    "name", ["StableDiffusionAdapterPipeline", "StableDiffusionXLAdapterPipeline"]
)
def test_t2i_adapter_is_refused(name: str) -> None:
    """diffusers gives these loops no callback at the end of a step."""
    xl = "XL" in name
    parts = dict(harness.build("xl-text2img" if xl else "text2img").components)
    kind = getattr(diffusers, name)
    parts["adapter"] = diffusers.T2IAdapter(channels=[8, 16], num_res_blocks=1, downscale_factor=2)
    if not xl:
        parts["requires_safety_checker"] = False
    parts.pop("image_encoder", None)
    pipe = kind(**parts)
    with pytest.raises(UnsupportedPipelineError, match=f"{name} .* takes no callback_on_step_end"):
        bind(pipe, CFGCutoff(0.5))


class LowRank(torch.nn.Module):
    """A linear layer with a low-rank change beside it, as LoRA's layers are (peft, which loads
    such files, only puts modules like this one in the place of the model's own)."""

    def __init__(self, base: torch.nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.base = base
        self.down = torch.nn.Linear(base.in_features, rank, bias=False)
        self.up = torch.nn.Linear(rank, base.out_features, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        changed: torch.Tensor = self.base(x) + 0.5 * self.up(self.down(x))
        return changed


@pytest.mark.parametrize("kind", ["text2img", "xl-text2img"])
def test_low_rank_change(kind: str) -> None:
    pipe = harness.build(kind)
    call = call_of(pipe, kind, prompts=2)
    without = call()
    torch.manual_seed(3)
    for module in list(pipe.unet.modules()):
        if isinstance(module, diffusers.models.attention_processor.Attention):
            module.to_q, module.to_v = LowRank(module.to_q), LowRank(module.to_v)
    assert error(call(), without) > DIFFERENT
    check_cut(pipe, call)


# --------------------------------------------------------------------------- prompts


def with_text(kind: str) -> Any:
    """Text to image with a text encoder, and with the tokenizer of the example's checkpoint."""
    pipe = harness.build(kind)
    folder = Path(__file__).parents[3] / "examples" / "shapes" / "checkpoint" / "tokenizer"
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=POOLED_WIDTH,
        max_position_embeddings=tokenizer.model_max_length,
    )
    torch.manual_seed(2)
    if kind == "text2img":
        pipe.register_modules(tokenizer=tokenizer, text_encoder=CLIPTextModel(config).eval())
    else:  # its second encoder alone will do, and is the one that pools
        encoder = CLIPTextModelWithProjection(config).eval()
        pipe.register_modules(tokenizer_2=tokenizer, text_encoder_2=encoder)
    return pipe


ONE, TWO = "a red circle", ["a red circle", "a green square"]


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize(
    ("kind", "prompt", "negative"),
    [
        ("text2img", ONE, None),
        ("text2img", ONE, "a blue square"),
        ("text2img", TWO, None),
        ("text2img", TWO, ["a blue square", "a red square"]),
        ("xl-text2img", ONE, None),
        ("xl-text2img", TWO, None),
        ("xl-text2img", TWO, "a blue square"),  # which Stable Diffusion 1 itself refuses
    ],
)
def test_prompts_and_negative_prompts(kind: str, prompt: Any, negative: Any, images: int) -> None:
    """As many of each as the pipeline allows."""
    pipe = with_text(kind)
    keywords = {
        "prompt": prompt,
        "negative_prompt": negative,
        "num_images_per_prompt": images,
        "guidance_scale": 5.0,
        "num_inference_steps": STEPS,
        "height": PIXELS,
        "width": PIXELS,
    }
    rows = check_cut(pipe, seeded(pipe, keywords))
    count = images * (1 if isinstance(prompt, str) else len(prompt))
    assert rows == [2 * count] * 2 + [count] * 2


@pytest.mark.parametrize("kind", ["text2img", "xl-text2img", "ip-adapter", "inpaint", "controlnet"])
def test_several_images_of_several_prompts(kind: str) -> None:
    pipe = harness.build(kind)
    rows = check_cut(pipe, call_of(pipe, kind, prompts=2, images=3))
    assert rows == [12, 12, 6, 6]
