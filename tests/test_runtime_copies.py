"""Siblings of pipelines on runtimes whose models serve one call at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from unicb import CFGCutoff, bind, sibling
from unicb_numpy.pipelines import ToyPipeline, ToyUNet


class Compiled:
    """As ``openvino.CompiledModel``: made of another, it shares the weights, not the request."""

    def __init__(self, other: Compiled | None = None) -> None:
        self.weights: object = object() if other is None else other.weights

    def create_infer_request(self) -> None: ...


class LikeOpenVINO(ToyUNet):
    def __init__(self) -> None:
        self.request: Compiled | None = None

    def compile(self) -> None:
        if self.request is None:
            self.request = Compiled()

    def clear_requests(self) -> None:
        self.request = None


class Session:
    def io_binding(self) -> object:
        return object()


class LikeOnnx(ToyUNet):
    def __init__(self) -> None:
        self.session = Session()
        self._io_binding = self.session.io_binding()


class VAE:
    def __init__(self, decoder: Any) -> None:
        self.decoder = decoder


@pytest.mark.parametrize("compiled", [False, True])
def test_each_has_a_request_of_its_own(pipe: Any, compiled: bool) -> None:
    pipe.unet = LikeOpenVINO()
    if compiled:
        pipe.unet.compile()
    other = sibling(pipe)
    assert other.unet is not pipe.unet
    assert type(other.unet) is LikeOpenVINO
    assert other.unet.request is not pipe.unet.request
    assert other.unet.request.weights is pipe.unet.request.weights
    cut = bind(pipe, CFGCutoff(0.4))
    assert np.array_equal(bind(other, CFGCutoff(0.4))("a dog"), cut("a dog"))


def test_each_has_a_binding_of_its_own(pipe: Any) -> None:
    pipe.unet = LikeOnnx()
    other = sibling(pipe)
    assert other.unet.session is pipe.unet.session
    assert other.unet._io_binding is not pipe.unet._io_binding


def test_parts_of_a_model(pipe: Any) -> None:
    """A decoder that is the pipeline's and its VAE's is one, in the sibling too."""
    pipe.vae_decoder = LikeOnnx()
    pipe.vae = VAE(pipe.vae_decoder)
    other = sibling(pipe)
    assert other.vae is not pipe.vae
    assert other.vae.decoder is other.vae_decoder
    assert other.vae_decoder is not pipe.vae_decoder


def test_a_sibling_made_in_a_run_has_nothing_of_it(pipe: Any) -> None:
    pipe.unet = LikeOnnx()
    made: list[Any] = []

    def make(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> None:
        if index == 5:
            made.append(sibling(pipe))

    bind(pipe, CFGCutoff(0.2), make, tensor_inputs=[])("a dog")
    assert type(made[0].unet) is LikeOnnx
    assert np.array_equal(made[0]("a dog"), ToyPipeline()("a dog"))


@pytest.mark.parametrize("attributes", [{"request": object()}, {"_io_binding": 1}, {"session": 2}])
def test_other_models_are_shared(pipe: Any, attributes: dict[str, Any]) -> None:
    vars(pipe.unet).update(attributes)
    assert sibling(pipe).unet is pipe.unet
