"""Callbacks on models that MindSpore has compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import ip_adapter_runs as runs
import mindspore
import numpy as np
import pytest
import ways
from compilable import compilable, compiled, graphs
from mindspore import nn

from unicb import (
    Callback,
    CFGCutoff,
    GenerationCancelled,
    GuidanceInterval,
    GuidanceSchedule,
    Interrupt,
    IPAdapterScale,
    Preview,
    Step,
    UnsupportedPipelineError,
    bind,
)
from unicb.testing import Case
from unicb_mindspore import backend
from unicb_mindspore.harness import harness
from zoo.entry import CASES

STEPS = 5
#: Of the largest value. MindSpore adds up in another order where it compiles: 7.4e-7 was measured.
EXACT = 1e-5
HOW = ("jit", "graph")
#: Latents after each step.
Steps = list[Any]
#: What changes latents, or ends a run.
CALLBACKS: dict[str, Callable[[], Callback]] = {
    "cut": lambda: CFGCutoff(cutoff_step_index=1),
    "interval": lambda: GuidanceInterval(0.3, 0.7),
    "schedule": lambda: GuidanceSchedule(lambda progress: 1 + 6 * progress),
    "interrupt": lambda: Interrupt(2),
}


@pytest.fixture(autouse=True, scope="module")
def _can_be_compiled() -> Iterator[None]:
    with compilable():
        yield


class Pictures:
    """A pipeline's runs: the latents of each step, and the previews that it shows."""

    def __init__(self, kind: str) -> None:
        self.pipe, self.case = harness.build(kind), Case(kind, prompts=2, steps=STEPS)
        self.previews: list[Any] = []

    def run(self, *callbacks: Any) -> Steps:
        seen: Steps = []

        def look(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> None:
            seen.append(backend.ops.to_numpy(tensors["latents"]))

        frames: list[Any] = []
        binding = bind(self.pipe, *callbacks, Preview(frames), look, tensor_inputs=["latents"])
        harness.run(self.pipe, self.case, **binding)
        self.previews = [np.stack(frame.images).astype(int) for frame in frames]
        return seen


def difference(found: Steps, expected: Steps) -> float:
    pairs = zip(found, expected, strict=True)
    worst = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)
    print(f"difference {worst:.1e}")
    return worst


@pytest.mark.parametrize(
    ("how", "kind", "name"),
    [
        ("jit", "text2img", "unet"),
        ("graph", "text2img", "unet"),
        ("jit", "inpaint-9", "unet"),
        # Not the UNet that it is for: MindSpore itself compiles that anew in each step, since it is
        # handed tensors in a list.
        ("jit", "controlnet", "controlnet"),
    ],
)
def test_callbacks(how: str, kind: str, name: str) -> None:
    """They do what they do where nothing is compiled. From the first cut on, there is one more
    graph, for half of the rows. Other pipelines differ in what is compiled for the cut only."""
    pictures = Pictures(kind)
    pipe, model = pictures.pipe, getattr(pictures.pipe, name)
    chosen = CALLBACKS if kind == "text2img" else {"cut": CALLBACKS["cut"]}
    expected = {name: pictures.run(make()) for name, make in chosen.items()}
    plain = pictures.run()
    previews = pictures.previews
    assert difference(expected["cut"], plain) > 100 * EXACT
    with compiled(how, model):
        none = graphs(model)
        first = pictures.run()
        assert difference(first, plain) < EXACT
        assert len(pictures.previews) == len(previews) == STEPS
        assert (
            max(np.abs(a - b).max() for a, b in zip(pictures.previews, previews, strict=True)) <= 1
        )
        assert graphs(model) == none + 1
        before = harness.traces(pipe)
        for name in (*chosen, "cut"):
            assert difference(pictures.run(CALLBACKS[name]()), expected[name]) < EXACT
            assert graphs(model) == none + 2
            assert harness.traces(pipe) == before
        assert all(np.array_equal(a, b) for a, b in zip(pictures.run(), first, strict=True))
        assert graphs(model) == none + 2


@pytest.mark.parametrize("how", HOW)
def test_cancel(how: str) -> None:
    """At the step's end; and at once, which is before the next call of a compiled model, whose
    blocks are called by nobody."""
    pictures = Pictures("text2img")
    pipe, case = pictures.pipe, pictures.case
    plain = pictures.run()
    scale_input = pipe.scheduler.scale_model_input
    act: list[Callable[[], Any]] = []

    def before_the_call(*args: Any, **kwargs: Any) -> Any:
        calls.append(len(calls))
        if len(calls) == 3:
            act[0]()
        return scale_input(*args, **kwargs)

    with compiled(how, pipe.unet):
        pictures.run()
        before, compiled_graphs = harness.traces(pipe), graphs(pipe.unet)
        pipe.scheduler.scale_model_input = before_the_call
        for now in (False, True):
            calls: list[int] = []
            callbacks = bind(pipe)
            act[:] = [lambda callbacks=callbacks, now=now: callbacks.cancel(now)]  # type: ignore[misc]
            with pytest.raises(GenerationCancelled) as caught:
                harness.run(pipe, case, **callbacks)
            assert caught.value.step == (1 if now else 2)
            assert difference([caught.value.latents], [plain[caught.value.step]]) < EXACT
            assert harness.traces(pipe) == before
        del pipe.scheduler.scale_model_input
        callbacks = bind(pipe)
        callbacks.cancel(now=True)
        with pytest.raises(GenerationCancelled) as caught:
            harness.run(pipe, case, **callbacks)
        assert caught.value.step == -1
        assert harness.traces(pipe) == before
        assert difference(pictures.run(), plain) < EXACT
        assert graphs(pipe.unet) == compiled_graphs


@pytest.mark.parametrize("how", HOW)
def test_loop_without_a_flag(how: str) -> None:
    """It runs out without a call of the model, as where nothing is compiled."""
    title = "StableDiffusionInstructPix2PixPipeline"
    entry, pipe = ways.all_entries("mindspore")[title], ways.pipeline("mindspore", title)
    case = next(case for case in CASES if case not in entry.impossible)
    calls: list[int] = []

    def counted(call: Any, args: Any, kwargs: Any) -> Any:
        calls[-1] += 1
        return call(*args, **kwargs)

    def run(*callbacks: Any) -> Any:
        calls.append(0)
        arguments = entry.arguments(ways.framework("mindspore"), pipe, CASES[case])
        return backend.ops.to_numpy(pipe(**arguments, **bind(pipe, *callbacks))[0])

    remove = backend.hook(pipe.unet, counted)
    plain, expected = run(), run(Interrupt(1))
    assert difference([expected], [plain]) > 100 * EXACT
    with compiled(how, pipe.unet):
        none = graphs(pipe.unet)
        first = run()
        assert difference([first], [plain]) < EXACT
        assert difference([run(Interrupt(1))], [expected]) < EXACT
        assert np.array_equal(run(), first)
        assert graphs(pipe.unet) == none + 1
    remove()
    assert calls == [4, 2, 4, 2, 4]


class Below(nn.Cell):
    def construct(self, x: Any) -> Any:
        return x * 2


class Block(Below):
    def construct(self, x: Any) -> Any:
        return super().construct(x) + 1


class Model(Below):
    def __init__(self) -> None:
        super().__init__()
        self.block = Block()

    def construct(self, x: Any) -> Any:
        return self.block(super(Model, self).construct(x))  # noqa: UP008


@pytest.mark.parametrize("how", HOW)
def test_compiled_with_hooks_on(how: str) -> None:
    """On the model, and on a part of it, as while somebody else cancels at once. The one on the
    part is not called, and that one can go makes no other graph. `super()` finds what it should."""
    model, x, seen = Model(), mindspore.Tensor(np.ones((2, 2), np.float32)), []

    def noting(name: str) -> Any:
        def around(call: Any, args: Any, kwargs: Any) -> Any:
            seen.append(name)
            return call(*args, **kwargs)

        return around

    with compiled(how, model):
        none = graphs(model)
        inner = backend.hook(model.block, noting("block"))
        outer = backend.hook(model, noting("model"))
        assert (model(x).asnumpy() == 5).all()
        assert seen == ["model"]
        inner()
        assert (model(x).asnumpy() == 5).all()
        outer()
        assert (model(x).asnumpy() == 5).all()
        assert seen == ["model"] * 2
        assert graphs(model) == none + 1
    assert (type(model), type(model.block)) == (Model, Block)


def test_compiled_block() -> None:
    """As mindone's compile_repeated_blocks does it. A hook on such a block is called."""
    pictures = Pictures("text2img")
    unet, seen = pictures.pipe.unet, []
    blocks = [*unet.down_blocks]  # those up are handed tensors in a tuple
    expected = pictures.run(CFGCutoff(cutoff_step_index=1))

    def around(call: Any, args: Any, kwargs: Any) -> Any:
        seen.append(call)
        return call(*args, **kwargs)

    with compiled("jit", *blocks):
        none = graphs()
        for _ in range(2):
            assert difference(pictures.run(CFGCutoff(cutoff_step_index=1)), expected) < EXACT
            assert graphs() == none + 2 * len(blocks)
        remove = backend.hook(blocks[0], around)
        pictures.run()
        remove()
        assert len(seen) == STEPS
        assert graphs() == none + 2 * len(blocks)


@pytest.mark.parametrize("how", HOW)
def test_parts_of_compiled_models_cannot_be_changed(how: str) -> None:
    """MindSpore builds their attributes into its graph, and calls nobody."""
    pipe = ways.pipeline("mindspore", "StableDiffusionPipeline (IP-Adapter)")

    class Changes(Callback):
        def on_step_end(self, step: Step) -> None:
            block, layer = pipe.unet.down_blocks[0], runs.processors(pipe)[0]
            for change in (
                lambda: step.run.hook(block, lambda call, args, kwargs: call(*args, **kwargs)),
                lambda: step.run.hold(layer, "scale", [0.0]),
            ):
                change()
                with compiled(how, pipe.unet), refused:
                    change()
                seen.append(step.index)

    seen: list[int] = []
    refused = pytest.raises(UnsupportedPipelineError, match="has built it into the graph")
    with compiled(how, pipe.unet), refused:
        bind(pipe, IPAdapterScale(0.5))
    runs.latents("mindspore", "StableDiffusionPipeline (IP-Adapter)", Changes())
    assert seen[:3] == [0, 0, 1]
