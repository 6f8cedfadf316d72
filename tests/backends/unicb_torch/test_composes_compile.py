"""CFGCutoff on compiled denoisers: with torch's "eager" backend, which compiles nothing, but whose
tracing is that of every backend."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from test_composes import Call, Reference, call_of, error, traces
from test_composes_pipelines import ltx
from torch._dynamo.utils import counters

from unicb import CFGCutoff, bind
from unicb.testing.tiny import TEXT_WIDTH
from unicb_torch import backend
from unicb_torch.harness import harness
from unicb_torch.pipelines import ip_adapter

CUT = 1


class Tracer:
    """A compiler that only counts: how often it is asked, and with how many rows it is called."""

    def __init__(self) -> None:
        self.graphs = 0
        self.rows: list[int] = []

    def __call__(self, graph: Any, inputs: Any) -> Callable[..., Any]:
        self.graphs += 1

        def run(*args: Any) -> Any:
            samples = [x for x in args if isinstance(x, torch.Tensor) and x.shape[1:] == self.shape]
            self.rows.append(len(samples[0]))
            return graph.forward(*args)

        return run

    shape: tuple[int, ...] = ()


def wrapped(pipe: Any, name: str, tracer: Any) -> None:
    setattr(pipe, name, torch.compile(getattr(pipe, name), backend=tracer, dynamic=False))


def in_place(pipe: Any, name: str, tracer: Any) -> None:
    getattr(pipe, name).compile(backend=tracer, dynamic=False)


def unet() -> tuple[Any, Call, str, tuple[int, ...]]:
    """Of one block each way: the more layers, the longer dynamo takes."""
    pipe = harness.build("text2img")
    torch.manual_seed(0)
    pipe.unet = diffusers.UNet2DConditionModel(
        block_out_channels=(8,),
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=2,
        norm_num_groups=4,
    ).eval()
    return pipe, call_of(pipe, "text2img", prompts=2), "unet", (4, 8, 8)


def with_ip_adapter() -> Any:
    """A pipeline whose UNet of one block each way has an IP-Adapter."""
    pipe = harness.build("ip-adapter")
    pipe.unet = unet()[0].unet
    pipe.unet._load_ip_adapter_weights([ip_adapter(pipe.unet)])
    return pipe


def transformer() -> tuple[Any, Call, str, tuple[int, ...]]:
    """Whose loop puts a registry of diffusers' hooks on it, to tell caches which call it is."""
    pipe, call = ltx(layers=2)
    return pipe, call, "transformer", (8, 4)


pytestmark = pytest.mark.usefixtures("fresh_dynamo")


@pytest.mark.parametrize("compiled", [wrapped, in_place])
@pytest.mark.parametrize("build", [unet, transformer])
def test_compiled(
    build: Callable[[], tuple[Any, Call, str, tuple[int, ...]]],
    compiled: Callable[[Any, str, Any], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One more graph, for half of the rows, and nothing of unicb in any graph."""
    pipe, call, name, shape = build()
    expected = Reference(pipe, CUT, None).run(pipe, call)
    tracer = Tracer()
    tracer.shape = shape
    compiled(pipe, name, tracer)
    plain = call()
    before = traces(pipe)
    assert (tracer.graphs, set(tracer.rows)) == (1, {4})
    steps = len(tracer.rows)
    tracer.rows.clear()
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING, "torch"):
        warnings.simplefilter("error")
        binding = bind(pipe, CFGCutoff(cutoff_step_index=CUT))
        assert traces(pipe) == before
        first, second = call(**binding), call(**binding)
    assert tracer.graphs == 2
    assert tracer.rows == 2 * ([4] * (CUT + 1) + [2] * (steps - CUT - 1))
    assert not counters["graph_break"]
    warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not [record for record in warned if record.name.startswith("torch")]
    assert error(first, expected) < 1e-4
    assert (second == first).all()
    assert traces(pipe) == before
    assert (call() == plain).all()
    assert tracer.graphs == 2


def test_compiled_blocks() -> None:
    """The blocks are compiled, and the denoiser's own call is not: its hooks are as without."""
    pipe, call, *_ = transformer()
    expected = Reference(pipe, CUT, None).run(pipe, call)
    graphs: list[Any] = []

    def tracer(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    pipe.transformer.compile_repeated_blocks(backend=tracer, dynamic=False)
    plain = call()
    before = traces(pipe)
    assert len(graphs) == 1
    binding = bind(pipe, CFGCutoff(cutoff_step_index=CUT))
    for _ in range(2):
        assert error(call(**binding), expected) < 1e-4
    assert len(graphs) == 2
    assert not counters["graph_break"]
    assert traces(pipe) == before
    assert (call() == plain).all()


@pytest.mark.parametrize("compiled", [wrapped, in_place])
def test_compiled_between_bind_and_run(compiled: Callable[[Any, str, Any], None]) -> None:
    pipe, call, name, shape = transformer()
    expected = Reference(pipe, CUT, None).run(pipe, call)
    binding = bind(pipe, CFGCutoff(cutoff_step_index=CUT))
    tracer = Tracer()
    tracer.shape = shape
    compiled(pipe, name, tracer)
    assert error(call(**binding), expected) < 1e-4
    assert set(tracer.rows[: CUT + 1]) == {4}
    assert set(tracer.rows[CUT + 1 :]) == {2}


@pytest.mark.parametrize("compiled", [wrapped, in_place])
def test_hooks_on_a_compiled_module_nest(compiled: Callable[[Any, str, Any], None]) -> None:
    """And may be taken away in any order."""
    pipe, call, name, _ = transformer()
    compiled(pipe, name, "eager")
    plain = call()
    before = traces(pipe)
    seen: list[str] = []

    def around(label: str) -> Any:
        def hook(call: Any, args: Any, kwargs: Any) -> Any:
            seen.append(label)
            return call(*args, **kwargs)

        return hook

    inner = backend.hook(pipe.transformer, around("inner"))
    outer = backend.hook(pipe.transformer, around("outer"))
    assert (call() == plain).all()
    assert seen == ["outer", "inner"] * (len(seen) // 2)
    inner()
    seen.clear()
    call()
    assert set(seen) == {"outer"}
    outer()
    assert traces(pipe) == before
    seen.clear()
    assert (call() == plain).all()
    assert not seen
