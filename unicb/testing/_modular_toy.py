"""Build a pipeline of blocks on any backend's tensors, shaped like diffusers' modular ones."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from unicb.ops import Tensor
from unicb.pipelines import PipelineFacts

STEPS, SCALE = 6, 5.0


class State(SimpleNamespace):
    """A state holds what a block reads and writes."""


class ToyDenoiser:
    """The denoiser counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, sample: Tensor, t: float, embeds: Tensor) -> Tensor:
        self.calls += 1
        return sample * (0.5 + t) - embeds * 0.3


class ToyGuider:
    """The guider is classifier-free guidance as an object that says what a step takes and combines
    it."""

    _identifier_key = "identifier"

    def __init__(self) -> None:
        self.guidance_scale, self._stop = SCALE, 1.0
        self._step, self._count = 0, STEPS

    def set_state(self, step: int, num_inference_steps: int, timestep: Any) -> None:
        self._step, self._count = step, num_inference_steps

    def prepare_inputs(self, data: dict[str, tuple[Any, Any]]) -> list[State]:
        names = ["pred_cond"]
        if self._step < int(self._stop * self._count) and self.guidance_scale != 1.0:
            names.append("pred_uncond")
        return [
            State(identifier=name, **{key: both[index] for key, both in data.items()})
            for index, name in enumerate(names)
        ]

    def prepare_inputs_from_block_state(self, state: Any, fields: dict[str, Any]) -> list[State]:
        return self.prepare_inputs(fields)

    def prepare_models(self, denoiser: Any) -> None:
        """Leave the denoiser as it is."""

    def forward(self, pred_cond: Tensor, pred_uncond: Tensor | None = None) -> tuple[Tensor]:
        if pred_uncond is None:
            return (pred_cond,)
        return (pred_uncond + (pred_cond - pred_uncond) * self.guidance_scale,)


class _Block:
    inputs: ClassVar[list[Any]] = []
    intermediate_outputs: ClassVar[list[Any]] = []
    expected_components: ClassVar[list[Any]] = []


class Denoise(_Block):
    def __call__(self, pipeline: Any, state: State, i: int, t: float) -> tuple[Any, State]:
        guider = pipeline.guider
        guider.set_state(step=i, num_inference_steps=len(state.timesteps), timestep=t)
        found = {}
        for batch in guider.prepare_inputs({"embeds": (state.prompt_embeds, state.negative)}):
            guider.prepare_models(pipeline.denoiser)
            found[batch.identifier] = pipeline.denoiser(state.latents, t, batch.embeds)
        state.latents = state.latents - guider.forward(**found)[0] * (1.0 / STEPS)
        return pipeline, state


class Loop(_Block):
    inputs: ClassVar[list[Any]] = [
        SimpleNamespace(name=name, kwargs_type=None, type_hint="Tensor")
        for name in ("timesteps", "latents", "prompt_embeds")
    ]
    expected_components: ClassVar[list[Any]] = [
        SimpleNamespace(name="denoiser"),
        SimpleNamespace(name="guider"),
    ]

    def __init__(self) -> None:
        self.sub_blocks = {"denoise": Denoise()}

    def loop_step(self, components: Any, state: Any, **kwargs: Any) -> tuple[Any, Any]:
        for block in self.sub_blocks.values():
            components, state = block(components, state, **kwargs)
        return components, state

    def __call__(self, components: Any, state: State) -> tuple[Any, State]:
        for i, t in enumerate(state.timesteps):
            components, state = self.loop_step(components, state, i=i, t=t)
        return components, state


class ToyModularPipeline:
    """The pipeline has one loop block, a guider and a denoiser.

    Args:
        tensor: makes a tensor of an array in float32.
        of: an object of the backend, by which the pipeline is known to be one of its own.
    """

    unicb_facts = PipelineFacts("unicb.testing", cfg="none")

    def __init__(self, tensor: Callable[[Any], Tensor], of: Any) -> None:
        self._tensor, self._of = tensor, of
        self._blocks = Loop()
        self.denoiser, self.guider = ToyDenoiser(), ToyGuider()

    @property
    def _unicb_framework_of(self) -> Any:
        return self._of

    def __call__(self, rows: int = 2) -> Tensor:
        """Return latents ``[rows, 4, 8, 8]``, the same every time."""
        random = np.random.default_rng(0)
        arrays = random.standard_normal((3, rows, 4, 8, 8)).astype(np.float32)
        latents, embeds, negative = map(self._tensor, arrays)
        state = State(
            timesteps=[1.0 - i / STEPS for i in range(STEPS)],
            latents=latents,
            prompt_embeds=embeds,
            negative=negative,
        )
        self._blocks(self, state)
        return state.latents
