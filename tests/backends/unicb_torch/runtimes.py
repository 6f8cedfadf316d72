"""Stand-ins for what runtimes put in the place of a denoiser: objects that are no ``nn.Module``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import diffusers
import torch

__all__ = [
    "WRAPPERS",
    "Delegates",
    "Forwards",
    "HasNoCall",
    "LikeOpenVINO",
    "LikeOptimumIntel",
    "LikeOptimumOnnx",
    "Plain",
    "Slotted",
]


class Plain:
    """As wrappers of an engine are: a call, and what the pipeline reads of a model."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.hidden = [model]  # an engine is no attribute that is a module
        self.config, self.dtype = model.config, model.dtype
        self.rows: list[int] = []

    def __call__(self, sample: Any, *args: Any, **kwargs: Any) -> Any:
        self.rows.append(len(sample))
        return self.hidden[0](sample, *args, **kwargs)


class Forwards(Plain):
    """Its call is that of a method, as in optimum-intel 2.2.0 (``OVPipelinePart``)."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def forward(self, sample: Any, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(sample, *args, **kwargs)


class Slotted:
    __slots__ = ("config", "dtype", "hidden", "rows")

    def __init__(self, model: torch.nn.Module) -> None:
        self.hidden, self.config, self.dtype = [model], model.config, model.dtype
        self.rows: list[int] = []

    __call__ = Plain.__call__


class Delegates:
    """It answers for the model in everything, as in optimum-intel 2.2.0
    (``_OVZImageTransformerAdapter``): also when asked for its blocks and hooks."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.hidden, self.rows = [model], list[int]()

    def __getattr__(self, name: str) -> Any:
        if name == "hidden":  # it is being copied, and has nothing yet
            raise AttributeError(name)
        return getattr(self.hidden[0], name)

    __call__ = Plain.__call__


class Input:
    """An input of an exported model, as onnxruntime describes one."""

    def __init__(self, name: str, shape: list[Any]) -> None:
        self.name, self.shape = name, shape


class Session:
    """What of ``onnxruntime.InferenceSession`` is asked."""

    def __init__(self, rows: int | str) -> None:
        self.rows = rows

    def get_inputs(self) -> list[Input]:
        texts = Input("encoder_hidden_states", [self.rows, "sequence_length", 8])
        return [Input("timestep", []), Input("sample", [self.rows, 4, "height", "width"]), texts]


class LikeOptimumOnnx(Forwards):
    """What optimum-onnx 0.1.0 leaves of a UNet (``ORTUnet``): it has no ``modules``, and a
    ``named_modules`` without any."""

    def __init__(self, model: torch.nn.Module, rows: int | str = "batch_size") -> None:
        super().__init__(model)
        self.session, self.parent = Session(rows), None
        self.input_shapes = {one.name: one.shape for one in self.session.get_inputs()}

    def named_modules(self) -> Iterator[Any]:
        yield from []


class Length:
    """A dimension of a shape, or its rank, as OpenVINO has them."""

    def __init__(self, length: int) -> None:
        self.length, self.is_dynamic = length, length < 0

    def get_length(self) -> int:
        if self.is_dynamic:
            raise RuntimeError("dynamic dimensions have no length")
        return self.length


class Shape(list[Length]):
    rank: Length


class Port:
    """An input of an ``openvino.Model``."""

    def __init__(self, name: str, shape: list[int]) -> None:
        self.name, self.shape = name, Shape(map(Length, shape))
        self.shape.rank = Length(len(shape))

    def get_any_name(self) -> str:
        return self.name

    def get_partial_shape(self) -> Shape:
        return self.shape


class Graph:
    """What of an ``openvino.Model`` is asked."""

    def __init__(self, rows: int) -> None:
        sample, texts = Port("sample", [rows, 4, 8, 8]), Port("texts", [rows, 77, 8])
        self.inputs = [sample, Port("timestep", [1]), texts]


class LikeOpenVINO(Forwards):
    """What optimum-intel 2.2.0 leaves of a UNet (``OVModelUnet``)."""

    def __init__(self, model: torch.nn.Module, rows: int = -1) -> None:
        super().__init__(model)
        self.model, self.request = Graph(rows), None

    def modules(self) -> list[Any]:
        return []


class HasNoCall:
    """Nothing that a pipeline could call."""

    def __init__(self, model: Any) -> None:
        self.config, self.dtype = model.config, model.dtype


class HasAForward:
    """As optimum's ``OptimizedModel``, whose call comes before that of the pipeline's class."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


class HandsOnByName(HasAForward, diffusers.DiffusionPipeline):
    """As optimum-intel 2.2.0 (``OVDiffusionPipeline``)."""

    auto_model_class: Any = diffusers.DiffusionPipeline

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args = list(args)  # type: ignore[assignment]
        for name, value in kwargs.items():
            kwargs[name] = value
        kwargs["height"] = kwargs.get("height")
        return self.auto_model_class.__call__(self, *args, **kwargs)


class LikeOptimumIntel(HandsOnByName, diffusers.StableDiffusionPipeline):
    auto_model_class = diffusers.StableDiffusionPipeline


WRAPPERS: dict[str, Any] = {
    "a call": Plain,
    "a forward": Forwards,
    "slots": Slotted,
    "delegates": Delegates,
    "ONNX Runtime": LikeOptimumOnnx,
    "OpenVINO": LikeOpenVINO,
}
