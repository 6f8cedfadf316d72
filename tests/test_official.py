"""Functions and callback objects that are written as the frameworks' guides say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import loops
import numpy as np
import pytest

from unicb import CFGCutoff, Interrupt, PipelineFacts, UnsupportedPipelineError, bind
from unicb_numpy.pipelines import ToyPipeline

CUT = 3


class Processor:
    """The attention of an IP-Adapter."""

    def __init__(self, scale: Any) -> None:
        self.scale, self.to_k_ip = scale, object()


class SDCFGCutoffCallback:
    """Does what diffusers' does, of which it has the name."""

    tensor_inputs: Any = ["prompt_embeds"]

    def __call__(self, pipe: Any, index: int, _t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if index == CUT:
            tensors["prompt_embeds"] = tensors["prompt_embeds"][-1:]
            pipe._guidance_scale = 0.0
        return tensors


class IPAdapterScaleCutoffCallback:
    tensor_inputs: Any = []

    def __call__(self, pipe: Any, index: int, _t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if index == CUT:
            pipe.set_ip_adapter_scale(0.0)
        return tensors


class MultiPipelineCallbacks:
    def __init__(self, *callbacks: Any) -> None:
        self.callbacks = list(callbacks)

    @property
    def tensor_inputs(self) -> list[str]:
        return [name for callback in self.callbacks for name in callback.tensor_inputs]

    def __call__(self, pipe: Any, index: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        for callback in self.callbacks:
            tensors = callback(pipe, index, t, tensors)
        return tensors


class WithAdapter(ToyPipeline):
    """Has the attention processor of an IP-Adapter; its picture depends on its scale."""

    def __init__(self, scale: Any) -> None:
        super().__init__()
        processor = Processor(scale)
        self.processor = processor
        self.unet.attn_processors = {"attn2": processor, "attn1": object()}
        forward = self.unet.forward
        self.unet.forward = lambda *args, **kwargs: forward(*args, **kwargs) * self.ip_adapter()

    def ip_adapter(self) -> float:
        scale = self.processor.scale
        return 1.0 + float(sum(scale) if isinstance(scale, list) else scale)

    def set_ip_adapter_scale(self, scale: float) -> None:
        if isinstance(self.processor.scale, list):
            self.processor.scale[:] = [scale] * len(self.processor.scale)
        else:
            self.processor.scale = scale


@pytest.mark.parametrize("wrap", [lambda x: x, MultiPipelineCallbacks])
def test_does_what_it_does_by_itself(pipe: ToyPipeline, wrap: Any) -> None:
    callback = wrap(SDCFGCutoffCallback())
    expected = pipe(
        "a dog",
        callback_on_step_end=callback,
        callback_on_step_end_tensor_inputs=callback.tensor_inputs,
    )
    assert np.abs(expected - pipe("a dog")).max() > 1e-3
    assert np.array_equal(pipe("a dog", **bind(pipe, callback)), expected)


def test_it_names_its_own_tensors(pipe: ToyPipeline) -> None:
    """Whatever plain functions beside it are handed, each once."""
    both = MultiPipelineCallbacks(SDCFGCutoffCallback(), SDCFGCutoffCallback())
    callbacks = bind(pipe, both, tensor_inputs=["latents"])
    assert callbacks["callback_on_step_end_tensor_inputs"] == ["prompt_embeds", "latents"]
    handed: list[list[str]] = []

    def plain(_pipe: Any, _i: int, _t: Any, tensors: dict[str, Any]) -> None:
        handed.append(list(tensors))

    pipe("a dog", **bind(pipe, both, plain, tensor_inputs=["latents"]))
    assert handed == [["latents"]] * 10


def test_repr_names_its_class(pipe: ToyPipeline) -> None:
    assert repr(bind(pipe, SDCFGCutoffCallback())) == (
        "<Binding of ToyPipeline: SDCFGCutoffCallback>"
    )


def test_guidance_scale_is_put_back(pipe: ToyPipeline) -> None:
    during: list[float] = []

    def look(pipe: Any, _i: int, _t: Any, _tensors: Any) -> None:
        during.append(pipe.guidance_scale)

    pipe("a dog", guidance_scale=4.0, **bind(pipe, SDCFGCutoffCallback(), look))
    assert during == [4.0] * CUT + [0.0] * 7
    assert pipe.guidance_scale == 4.0


def test_guidance_scale_is_put_back_after_an_error(pipe: ToyPipeline) -> None:
    def fail(_pipe: Any, i: int, _t: Any, _tensors: Any) -> None:
        if i == CUT + 1:
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        pipe("a dog", guidance_scale=4.0, **bind(pipe, SDCFGCutoffCallback(), fail))
    assert pipe.guidance_scale == 4.0


def test_guidance_scale_is_put_back_where_the_object_itself_fails(pipe: ToyPipeline) -> None:
    class Fails(SDCFGCutoffCallback):
        def __call__(self, pipe: Any, index: int, t: Any, tensors: Any) -> dict[str, Any]:
            super().__call__(pipe, index, t, tensors)
            if index == CUT:
                raise RuntimeError("on purpose")
            return tensors

    with pytest.raises(RuntimeError, match="on purpose"):
        pipe("a dog", guidance_scale=4.0, **bind(pipe, Fails()))
    assert pipe.guidance_scale == 4.0


class CopiesScale(ToyPipeline):
    """Its loop keeps a copy of the scale, and asks the pipeline whether there is guidance."""

    unicb_facts = replace(ToyPipeline.unicb_facts, guidance_scale="local")


def test_a_loop_that_keeps_a_copy_of_the_scale() -> None:
    """Where ``step.guidance_scale = 0.0`` is refused, switching guidance off works."""
    pipe = CopiesScale()
    out = pipe("a dog", guidance_scale=4.0, **bind(pipe, SDCFGCutoffCallback()))
    expected = pipe("a dog", guidance_scale=4.0, **bind(pipe, CFGCutoff(cutoff_step_index=CUT)))
    np.testing.assert_allclose(out, expected, atol=1e-6)
    assert pipe.guidance_scale == 4.0


def test_a_scale_that_was_not_there_is_taken_away(pipe: ToyPipeline) -> None:
    class Scaleless(loops.LocalFlag):
        _callback_tensor_inputs = ("latents",)

        def start(self, *arguments: Any) -> Any:
            started = super().start(*arguments)
            del self._guidance_scale
            return started

    def sets(pipe: Any, _i: int, _t: Any, _tensors: Any) -> None:
        pipe._guidance_scale = 0.0

    pipe = Scaleless()
    pipe(["a dog"], **bind(pipe, sets))
    assert "_guidance_scale" not in vars(pipe)


def test_one_row_for_two_prompts_is_an_error(pipe: ToyPipeline) -> None:
    """This pipeline would give both pictures the embeddings of the last prompt."""
    with pytest.raises(UnsupportedPipelineError) as error:
        pipe(["a dog", "a cat"], **bind(pipe, SDCFGCutoffCallback()))
    assert "SDCFGCutoffCallback leaves 1 row of prompt_embeds for 2 pictures" in str(error.value)
    assert "CFGCutoff" in str(error.value)
    assert pipe.guidance_scale == 5.0


def test_one_row_for_two_pictures_of_one_prompt_is_left_to_the_pipeline(pipe: ToyPipeline) -> None:
    with pytest.warns(UserWarning, match="1 row of prompt_embeds for 2 pictures"):
        out = pipe("a dog", num_images_per_prompt=2, **bind(pipe, SDCFGCutoffCallback()))
    expected = pipe(
        "a dog", num_images_per_prompt=2, **bind(pipe, CFGCutoff(cutoff_step_index=CUT))
    )
    np.testing.assert_allclose(out, expected, atol=1e-6)


@pytest.mark.parametrize("scale", [[0.5, 0.25], 0.75])
def test_ip_adapter_scale_is_put_back(scale: Any) -> None:
    before = list(scale) if isinstance(scale, list) else scale
    pipe = WithAdapter(scale)
    plain = pipe("a dog")
    cut = pipe("a dog", **bind(pipe, IPAdapterScaleCutoffCallback()))
    assert np.abs(cut - plain).max() > 1e-3
    assert pipe.processor.scale == before
    assert np.array_equal(pipe("a dog"), plain)


def test_each_run_puts_back_what_it_found() -> None:
    """Also a scale that was set between two runs of one binding; also after an error."""
    pipe = WithAdapter(0.5)
    asked = [False]

    def fail(_pipe: Any, i: int, _t: Any, _tensors: Any) -> None:
        if asked[0] and i == CUT + 1:
            raise RuntimeError("on purpose")

    callbacks = bind(pipe, IPAdapterScaleCutoffCallback(), fail)
    pipe("a dog", **callbacks)
    pipe.processor.scale, asked[0] = 0.9, True
    with pytest.raises(RuntimeError, match="on purpose"):
        pipe("a dog", **callbacks)
    assert pipe.processor.scale == 0.9


def test_no_adapter_is_refused(pipe: ToyPipeline) -> None:
    with pytest.raises(UnsupportedPipelineError, match="has none loaded: call load_ip_adapter"):
        bind(pipe, IPAdapterScaleCutoffCallback())
    with pytest.raises(UnsupportedPipelineError, match="has none loaded"):
        bind(pipe, MultiPipelineCallbacks(IPAdapterScaleCutoffCallback()))


def test_cutting_guidance_beside_an_adapter_is_refused() -> None:
    """Its embeddings are doubled too, and no callback can reach them."""
    with pytest.raises(UnsupportedPipelineError, match="unconditional half of the IP-Adapter"):
        bind(WithAdapter(0.5), SDCFGCutoffCallback())


def test_an_adapter_loaded_after_bind_is_refused_in_the_run(pipe: ToyPipeline) -> None:
    callbacks = bind(pipe, SDCFGCutoffCallback())
    pipe.unet.attn_processors = WithAdapter(0.5).unet.attn_processors  # type: ignore[attr-defined]
    with pytest.raises(UnsupportedPipelineError, match="unconditional half of the IP-Adapter"):
        pipe("a dog", **callbacks)


def test_guidance_and_adapter_cut_together() -> None:
    """An adapter of scale 0 does nothing; one that is cut later would."""
    pipe = WithAdapter(0.5)
    both = MultiPipelineCallbacks(IPAdapterScaleCutoffCallback(), SDCFGCutoffCallback())
    pipe("a dog", **bind(pipe, both))
    assert (pipe.processor.scale, pipe.guidance_scale) == (0.5, 5.0)

    class Later(IPAdapterScaleCutoffCallback):
        def __call__(self, pipe: Any, index: int, t: Any, tensors: Any) -> dict[str, Any]:
            return super().__call__(pipe, index - 1, t, tensors)

    with pytest.raises(UnsupportedPipelineError, match="unconditional half of the IP-Adapter"):
        pipe("a dog", **bind(pipe, MultiPipelineCallbacks(SDCFGCutoffCallback(), Later())))
    assert (pipe.processor.scale, pipe.guidance_scale) == (0.5, 5.0)


def test_two_that_cut_guidance_are_refused(pipe: ToyPipeline) -> None:
    for one in (SDCFGCutoffCallback(), MultiPipelineCallbacks(SDCFGCutoffCallback())):
        with pytest.raises(
            ValueError, match="two callbacks of one binding both decide on guidance"
        ):
            bind(pipe, one, CFGCutoff(0.4))


def test_tensors_that_are_not_offered_are_refused(pipe: ToyPipeline) -> None:
    class SDXLCFGCutoffCallback(SDCFGCutoffCallback):
        tensor_inputs = ["prompt_embeds", "add_text_embeds"]

    with pytest.raises(UnsupportedPipelineError, match="offers no tensor called 'add_text_embeds'"):
        bind(pipe, SDXLCFGCutoffCallback())


def test_no_names_of_tensors_is_refused(pipe: ToyPipeline) -> None:
    class Unfinished(SDCFGCutoffCallback):
        @property
        def tensor_inputs(self) -> list[str]:
            raise NotImplementedError("set it")

    with pytest.raises(TypeError, match="Unfinished does not say which tensors") as error:
        bind(pipe, Unfinished())
    assert isinstance(error.value.__cause__, NotImplementedError)

    class Wrong(SDCFGCutoffCallback):
        tensor_inputs = "latents"

    with pytest.raises(TypeError, match=r"Wrong\.tensor_inputs is 'latents'; it must be a list"):
        bind(pipe, Wrong())


def test_the_class_itself_is_refused(pipe: ToyPipeline) -> None:
    with pytest.raises(TypeError, match=r"write SDCFGCutoffCallback\(\.\.\.\)"):
        bind(pipe, SDCFGCutoffCallback)  # type: ignore[arg-type]


def test_a_functions_guidance_scale_is_put_back(pipe: ToyPipeline) -> None:
    def dynamic(pipe: Any, i: int, _t: Any, tensors: dict[str, Any]) -> None:
        if i == CUT:
            tensors["prompt_embeds"] = tensors["prompt_embeds"][1:]
            pipe._guidance_scale = 0.0

    out = pipe("a dog", guidance_scale=4.0, **bind(pipe, dynamic))
    expected = pipe("a dog", guidance_scale=4.0, **bind(pipe, CFGCutoff(cutoff_step_index=CUT)))
    np.testing.assert_allclose(out, expected, atol=1e-6)
    assert pipe.guidance_scale == 4.0


class Flagless(loops.LocalFlag):
    _callback_tensor_inputs = ("latents",)
    unicb_facts = PipelineFacts(source="here", denoisers=("unet",), cfg="calls")


@pytest.mark.parametrize("kind", [ToyPipeline, Flagless])
def test_a_functions_flag_interrupts_the_run(kind: Any) -> None:
    """Also on a pipeline whose loop reads none, and also in the next run of the same."""
    pipe = kind()
    ends: list[int] = []

    def stop(pipe: Any, i: int, _t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        ends.append(i)
        if i == CUT:
            pipe._interrupt = True
        return tensors

    callbacks = bind(pipe, stop)
    pictures = [pipe(["a dog"], **callbacks) for _ in range(2)]
    assert ends == [*range(CUT + 1)] * 2
    assert (callbacks.state, callbacks.step) == ("interrupted", CUT)
    assert np.array_equal(*pictures)
    assert np.array_equal(
        pictures[0], pipe(["a dog"], **bind(pipe, Interrupt(CUT, picture="latents")))
    )
    assert np.abs(pictures[0] - pipe(["a dog"])).max() > 1e-3
    assert pipe._interrupt is False
