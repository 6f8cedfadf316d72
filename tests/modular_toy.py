"""A toy modular pipeline: blocks that share a state, one of which loops, and a guider."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from unicb import PipelineFacts
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline, ToyUNet

log = logging.getLogger("modular_toy")


class BlockState(SimpleNamespace):
    """What a block reads and writes, by attributes."""


class SetState:
    """A state that is read by attributes, and written by :meth:`set` alone."""

    def __init__(self, **values: Any) -> None:
        vars(self)["values"] = values

    def __getattr__(self, name: str) -> Any:
        try:
            return vars(self)["values"][name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        raise AssertionError(f"{name} is not written by set()")

    def set(self, name: str, value: Any) -> None:
        self.values[name] = value


class Guider:
    """Classifier-free guidance, as diffusers' guiders do it."""

    _identifier_key = "__guidance_identifier__"

    def __init__(self, guidance_scale: float = 5.0, start: float = 0.0, stop: float = 1.0) -> None:
        self.guidance_scale, self._start, self._stop, self._enabled = (
            guidance_scale,
            start,
            stop,
            True,
        )
        self._step: int | None = None
        self._num_inference_steps: int | None = None
        self._count_prepared = 0

    def set_state(self, step: int, num_inference_steps: int, timestep: Any) -> None:
        self._step, self._num_inference_steps = step, num_inference_steps
        self._count_prepared = 0

    def guides(self) -> bool:
        if not self._enabled or self.guidance_scale == 1.0:
            return False
        n, step = self._num_inference_steps, self._step
        if n is None or step is None:
            return True
        return int(self._start * n) <= step < int(self._stop * n)

    def names(self) -> list[str]:
        return ["pred_cond", "pred_uncond"] if self.guides() else ["pred_cond"]

    def prepare_inputs(self, data: dict[str, tuple[Any, ...]]) -> list[Any]:
        return self._prepared({name: values for name, values in data.items()})

    def prepare_inputs_from_block_state(self, state: Any, fields: dict[str, Any]) -> list[Any]:
        return self._prepared(
            {name: tuple(getattr(state, x) for x in both) for name, both in fields.items()}
        )

    def _prepared(self, data: dict[str, tuple[Any, ...]]) -> list[Any]:
        found = []
        for name in self.names():
            batch = {key: both[name == "pred_uncond"] for key, both in data.items()}
            found.append(BlockState(**{self._identifier_key: name}, **batch))
        return found

    def prepare_models(self, denoiser: Any) -> None:
        self._count_prepared += 1

    def __call__(self, batches: list[Any]) -> Any:
        if len(batches) != len(self.names()):
            raise ValueError(f"expected {len(self.names())} items, got {len(batches)}")
        return self.forward(**{getattr(b, self._identifier_key): b.noise_pred for b in batches})

    def forward(self, pred_cond: Any, pred_uncond: Any = None) -> Any:
        if not self.guides():
            return (pred_cond,)
        return (pred_uncond + (pred_cond - pred_uncond) * self.guidance_scale,)


class SkipGuider(Guider):
    """One that wants a third prediction, of a worse model, which it counts its calls for."""

    def __init__(self, *args: Any, skip_scale: float = 2.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.skip_scale = skip_scale

    def names(self) -> list[str]:
        return [*super().names(), "pred_cond_skip"]

    def prepare_models(self, denoiser: Any) -> None:
        super().prepare_models(denoiser)
        denoiser.worse = self._count_prepared == len(self.names())

    def forward(self, pred_cond: Any, pred_uncond: Any = None, pred_cond_skip: Any = None) -> Any:
        away = (pred_cond - pred_cond_skip) * self.skip_scale
        if not self.guides():
            return (pred_cond_skip + away,)
        return (pred_uncond + (pred_cond - pred_uncond) * self.guidance_scale + away,)


class TermsGuider(SkipGuider):
    """One whose third prediction is a term of its own."""

    def forward(self, pred_cond: Any, pred_uncond: Any = None, pred_cond_skip: Any = None) -> Any:
        pred = pred_cond + (pred_cond - pred_cond_skip) * self.skip_scale
        if self.guides():
            pred = pred + (pred_cond - pred_uncond) * (self.guidance_scale - 1.0)
        return (pred,)


class CountingUNet(ToyUNet):
    """Counts its calls; worse when asked to be."""

    def __init__(self) -> None:
        self.calls, self.worse = 0, False

    def forward(self, *args: Any, **kwargs: Any) -> StrictTensor:
        self.calls += 1
        return super().forward(*args, **kwargs) * (0.9 if self.worse else 1.0)


def parameter(name: str | None = None, kind: str | None = None, hint: Any = "Tensor") -> Any:
    return SimpleNamespace(name=name, kwargs_type=kind, type_hint=hint)


class Block:
    """One block of a pipeline."""

    sub_blocks: ClassVar[dict[str, Any]] = {}
    inputs: ClassVar[list[Any]] = []
    intermediate_outputs: ClassVar[list[Any]] = []
    expected_components: ClassVar[list[Any]] = []

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        raise NotImplementedError


class Encode(Block):
    """The prompts, into embeddings, for what the denoiser takes."""

    intermediate_outputs: ClassVar[list[Any]] = [
        parameter("prompt_embeds", "denoiser_input_fields"),
        parameter("negative_prompt_embeds", "denoiser_input_fields"),
    ]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        prompts = [state.prompt] if isinstance(state.prompt, str) else list(state.prompt)
        state.set("prompt_embeds", components.encode_prompt(prompts))
        state.set("negative_prompt_embeds", components.encode_prompt([""] * len(prompts)))
        noise = np.random.default_rng(state.seed).normal(size=(len(prompts), 4, 8, 8))
        state.set("latents", StrictTensor(noise.astype(components.dtype)))
        timesteps = components.scheduler.set_timesteps(state.num_inference_steps)
        state.set("timesteps", timesteps)
        return components, state


class Denoise(Block):
    """What a step predicts."""

    def __call__(self, components: Any, state: Any, i: int, t: Any) -> tuple[Any, Any]:
        guider = components.guider
        guider.set_state(step=i, num_inference_steps=len(state.timesteps), timestep=t)
        fields = state.denoiser_input_fields
        batches = guider.prepare_inputs(
            {"embeds": (fields["prompt_embeds"], fields["negative_prompt_embeds"])}
        )
        for batch in batches:
            guider.prepare_models(components.unet)
            batch.noise_pred = components.unet(state.latents, t, encoder_hidden_states=batch.embeds)
        _put(state, "noise_pred", guider(batches)[0])
        return components, state


class Advance(Block):
    """What a step makes of that."""

    def __call__(self, components: Any, state: Any, i: int, t: Any) -> tuple[Any, Any]:
        _put(state, "latents", components.scheduler.step(state.noise_pred, t, state.latents))
        return components, state


class Loop(Block):
    """The loop."""

    expected_components: ClassVar[list[Any]] = [
        SimpleNamespace(name=name) for name in ("guider", "unet", "scheduler")
    ]
    inputs: ClassVar[list[Any]] = [
        parameter("timesteps"),
        parameter("latents"),
        parameter("generator", hint="Generator"),
        parameter(None, "denoiser_input_fields", None),
    ]
    state_class: type = BlockState

    def __init__(self) -> None:
        self.sub_blocks = {"denoise": Denoise(), "advance": Advance()}

    def block_state(self, state: Any) -> Any:
        names = ("prompt_embeds", "negative_prompt_embeds")
        values = {name: getattr(state, name) for name in ("timesteps", "latents", *names)}
        fields = {name: values[name] for name in names}
        return self.state_class(denoiser_input_fields=fields, **values)

    def loop_step(self, components: Any, state: Any, **kwargs: Any) -> tuple[Any, Any]:
        for block in self.sub_blocks.values():
            try:
                components, state = block(components, state, **kwargs)
            except Exception:
                log.exception("an error in a block")
                raise
        return components, state

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.block_state(state)
        for i, t in enumerate(block_state.timesteps):
            components, block_state = self.loop_step(components, block_state, i=i, t=t)
        state.set("latents", block_state.latents)
        return components, state


class Decode(Block):
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        picture = np.clip(state.latents.data / 4 + 0.5, 0, 1).transpose(0, 2, 3, 1)
        state.set("images", picture)
        return components, state


class Sequence(Block):
    """Blocks one after another."""

    def __init__(self, **blocks: Any) -> None:
        self.sub_blocks = blocks

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        for block in self.sub_blocks.values():
            try:
                components, state = block(components, state)
            except Exception:
                log.exception("an error in a block")
                raise
        return components, state


class ModularToy(ToyPipeline):
    """A pipeline of blocks."""

    unicb_facts = PipelineFacts("this file", cfg="none", latents="sd")

    def __init__(self, guider: Any = None, loop: Any = None, order: int = 1) -> None:
        super().__init__(order)
        self.unet = CountingUNet()
        self.guider = guider or Guider()
        self._blocks = Sequence(encode=Encode(), loop=loop or Loop(), decode=Decode())

    def __call__(  # type: ignore[override]
        self,
        prompt: Any,
        output: str = "images",
        num_inference_steps: int = 10,
        seed: int = 0,
    ) -> Any:
        state = SetState(prompt=prompt, num_inference_steps=num_inference_steps, seed=seed)
        try:
            self._blocks(self, state)
        except Exception:
            log.exception("an error in the blocks")
            raise
        found = getattr(state, output)
        return found.data if isinstance(found, StrictTensor) else found


def _put(state: Any, name: str, value: Any) -> None:
    if isinstance(state, SetState):
        state.set(name, value)
    else:
        setattr(state, name, value)


class Inner(Block):
    """The loop over the steps of one part."""

    #: Frames of its calls, kept so that no later one is where an earlier one was.
    frames: ClassVar[list[Any]] = []

    def __call__(self, components: Any, block_state: Any, k: int) -> tuple[Any, Any]:
        self.frames.append(sys._getframe())
        latents = block_state.latents
        timesteps = components.scheduler.set_timesteps(len(block_state.timesteps))
        guider, embeds = components.guider, block_state.denoiser_input_fields
        inputs = {"embeds": (embeds["prompt_embeds"], embeds["negative_prompt_embeds"])}
        for i, t in enumerate(timesteps):
            guider.set_state(step=i, num_inference_steps=len(timesteps), timestep=t)
            batches = guider.prepare_inputs(inputs)
            for batch in batches:
                guider.prepare_models(components.unet)
                batch.noise_pred = components.unet(latents, t, encoder_hidden_states=batch.embeds)
            noise_pred = guider(batches)[0]
            latents = components.scheduler.step(noise_pred, t, latents)
        block_state.latents = latents
        return components, block_state


class Parts(Loop):
    """A loop over two parts, each of which has a loop of its own."""

    def __init__(self) -> None:
        self.sub_blocks = {"inner": Inner()}

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.block_state(state)
        for k in range(2):
            components, block_state = self.loop_step(components, block_state, k=k)
        state.set("latents", block_state.latents)
        return components, state
