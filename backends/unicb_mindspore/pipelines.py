"""Build tiny random-weight mindone pipelines."""

from __future__ import annotations

from typing import Any

import mindspore
import numpy as np
from mindone import diffusers
from mindone.transformers import CLIPTextModel

from unicb.testing.tiny import TinyPipelines


class MindSporePipelines(TinyPipelines):
    def __init__(self) -> None:
        super().__init__(diffusers, CLIPTextModel)

    def seed(self) -> None:
        mindspore.set_seed(0)
        np.random.seed(0)  # mindone draws initial weights from both generators

    def ready(self, model: Any) -> Any:
        return model.set_train(False)

    def fill_zeros(self, model: Any) -> None:
        random = np.random.default_rng(0)
        for parameter in model.get_parameters():
            if not parameter.asnumpy().any():
                noise = random.normal(scale=0.1, size=parameter.shape)
                parameter.set_data(mindspore.Tensor(noise, dtype=parameter.dtype))
