"""The two frameworks under one set of names, so that one builder serves both."""

from __future__ import annotations

import importlib
import inspect
import os
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from unicb.backend import Backend, get_backend


class Framework(ABC):
    """A framework's modules, and what differs between frameworks when tiny models are made."""

    name: str
    #: How far two runs of the same request may differ, in standard deviations.
    repeats_to: float = 0.0
    #: Whether runs take so long that previews are measured with one case alone.
    takes_long: bool = False
    #: Name of the method that a module's call runs.
    forward: str
    #: The output type with which pipelines return their pictures as tensors.
    tensors_as: str

    def __init__(self) -> None:
        self.backend: Backend = get_backend(self.name)
        self._random = np.random.default_rng(7)

    @property
    @abstractmethod
    def library(self) -> Any:
        """Return diffusers, or its port."""

    @property
    @abstractmethod
    def transformers(self) -> Any:
        """Return transformers, or its port."""

    @abstractmethod
    def tensor(self, array: Any, dtype: str = "float32") -> Any:
        """Return a tensor of the array's values."""

    @abstractmethod
    def generator(self, seed: int = 0) -> Any:
        """Return what a pipeline takes as ``generator``."""

    def own_generator(self, seed: int = 0) -> Any:
        """Return a generator of the framework itself, which not every pipeline takes."""
        return self.generator(seed)

    @abstractmethod
    def fill(self, model: Any) -> Any:
        """Return ``model`` in evaluation mode, its zero parameters replaced by small random
        numbers.

        Many layers start with zeros (the last of a ControlNet, the gates of a transformer), and a
        model that answers zero whatever it is asked would prove nothing.
        """

    @abstractmethod
    def is_module(self, value: object) -> bool: ...

    @abstractmethod
    def copy_into(self, target: Any, source: Any) -> None:
        """Overwrite the values of a tensor in place."""

    def seed(self) -> None:
        """Start the random numbers of new weights anew."""
        self._random = np.random.default_rng(7)

    def normal(self, *shape: int, seed: int = 1) -> Any:
        """Return a seeded normal tensor."""
        return self.tensor(np.random.default_rng(seed).normal(size=shape))

    def uniform(self, *shape: int, seed: int = 1) -> Any:
        """Return a seeded tensor of numbers in 0..1: a picture."""
        return self.tensor(np.random.default_rng(seed).uniform(size=shape))

    def zeros_and_box(self, *shape: int) -> Any:
        """Return a mask: 0, and 1 in the middle half of the last two axes."""
        array = np.zeros(shape)
        height, width = shape[-2:]
        array[..., height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = 1
        return self.tensor(array)

    def model(self, class_name: str, **config: Any) -> Any:
        """Return a model of the library from its configuration."""
        return self.fill(getattr(self.library, class_name)(**config))

    def named(self, name: str, *modules: str) -> Any:
        """Return a class that the library does not export, from the first of its modules that has
        it."""
        for module in modules:
            try:
                return getattr(importlib.import_module(f"{self.library.__name__}.{module}"), name)
            except ImportError:
                continue
        raise ImportError(f"{self.library.__name__} has no {name} in {', '.join(modules)}")

    def text_model(self, class_name: str, config: Any) -> Any:
        """Return a model of transformers from a configuration object of (the original)
        transformers."""
        return self.fill(getattr(self.transformers, class_name)(config))

    def scheduler(self, class_name: str, **config: Any) -> Any:
        return getattr(self.library, class_name)(**config)

    def pipeline(self, class_name: str, **parts: Any) -> Any:
        """Return a pipeline of the library from its parts, without its progress bar.

        Parts that are None may be left out: older releases do not know all of them.
        """
        kind = getattr(self.library, class_name)
        known = inspect.signature(kind.__init__).parameters
        made = kind(**{k: part for k, part in parts.items() if part is not None or k in known})
        made.set_progress_bar_config(disable=True)
        return made

    def _small(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        return self._random.normal(scale=0.1, size=shape).astype(np.float32)


class Torch(Framework):
    name, forward, tensors_as = "torch", "forward", "pt"

    def __init__(self) -> None:
        super().__init__()
        import torch

        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(1)  # on tensors this small, threads wait for each other

    @property
    def library(self) -> Any:
        return importlib.import_module("diffusers")

    @property
    def transformers(self) -> Any:
        return importlib.import_module("transformers")

    def tensor(self, array: Any, dtype: str = "float32") -> Any:
        import torch

        return torch.tensor(np.asarray(array), dtype=getattr(torch, dtype))

    def generator(self, seed: int = 0) -> Any:
        import torch

        return torch.Generator().manual_seed(seed)

    def fill(self, model: Any) -> Any:
        import torch

        with torch.no_grad():
            for parameter in model.parameters():
                if not parameter.any():
                    parameter.copy_(torch.tensor(self._small(tuple(parameter.shape))))
        return model.eval()

    def is_module(self, value: object) -> bool:
        import torch

        return isinstance(value, torch.nn.Module)

    def copy_into(self, target: Any, source: Any) -> None:
        target.copy_(source)

    def seed(self) -> None:
        import torch

        super().seed()
        torch.manual_seed(7)


class MindSpore(Framework):
    name, forward, tensors_as, takes_long = "mindspore", "construct", "ms", True
    repeats_to = 1e-5  # the first run in a process may differ from later ones, by 2.7e-6

    def __init__(self) -> None:
        super().__init__()
        from unicb_mindspore.cpu import enable_cpu
        from unicb_mindspore.threads import use_few_threads

        enable_cpu()
        use_few_threads()

    @property
    def library(self) -> Any:
        return importlib.import_module("mindone.diffusers")

    @property
    def transformers(self) -> Any:
        return importlib.import_module("mindone.transformers")

    def tensor(self, array: Any, dtype: str = "float32") -> Any:
        import mindspore

        return mindspore.Tensor(np.asarray(array), dtype=getattr(mindspore, dtype))

    def generator(self, seed: int = 0) -> Any:
        return np.random.default_rng(seed)

    def own_generator(self, seed: int = 0) -> Any:
        import mindspore

        return mindspore.Generator().manual_seed(seed)

    def fill(self, model: Any) -> Any:
        for parameter in model.get_parameters():
            if not parameter.asnumpy().any():
                parameter.set_data(self.tensor(self._small(tuple(parameter.shape))))
        return model.set_train(False)

    def is_module(self, value: object) -> bool:
        import mindspore

        return isinstance(value, mindspore.nn.Cell)

    def copy_into(self, target: Any, source: Any) -> None:
        target[...] = source

    def seed(self) -> None:
        import mindspore

        super().seed()
        mindspore.set_seed(7)


FRAMEWORKS: dict[str, type[Framework]] = {"torch": Torch, "mindspore": MindSpore}
