"""NaNGuard: finds the step that spoils the latents, and says what there is to say."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pytest

from unicb import Callback, Step, UnsupportedPipelineError, bind
from unicb.callbacks.nan_guard import LatentsNotFiniteError, NaNGuard
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline


class Spoil(Callback):
    """Puts a value into some latents at the end of one step."""

    tensors = ("latents",)

    def __init__(self, at: int, value: float, picture: int = 0, count: int = 64) -> None:
        self.at, self.value, self.picture, self.count = at, value, picture, count

    def on_step_end(self, step: Step) -> None:
        if step.index == self.at:
            data = step["latents"].data.copy()
            data[self.picture].reshape(-1)[: self.count] = self.value
            step["latents"] = StrictTensor(data)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_raises_at_the_step(value: float, dtype: str) -> None:
    pipe = ToyPipeline(dtype=dtype)
    with pytest.raises(LatentsNotFiniteError) as caught:
        pipe(["a", "b"], **bind(pipe, Spoil(3, value, picture=1), NaNGuard()))
    assert (caught.value.step, caught.value.share) == (3, 64 / 512)
    message = str(caught.value)
    kind = "NaN" if np.isnan(value) else "infinite"
    assert f"after step 3 of 10 (timestep 700): 12.5 % of the values (64 {kind})" in message
    assert "in the pictures 1 of 2" in message
    assert "after step 2 they were finite" in message
    assert ("float16 ends at 65504" in message) == (dtype == "float16")


def test_largest_value_before(pipe: ToyPipeline) -> None:
    kept: dict[int, Any] = {}

    def keep(pipeline: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> None:
        kept[index] = np.abs(tensors["latents"].data).max()

    guard = NaNGuard()
    with pytest.raises(LatentsNotFiniteError, match="the largest") as caught:
        pipe("x", **bind(pipe, keep, Spoil(5, np.inf), guard))
    assert f"the largest {kept[4]:.4g} (dtype float32)" in str(caught.value)


def test_one_value_is_enough(pipe: ToyPipeline) -> None:
    with pytest.raises(LatentsNotFiniteError) as caught:
        pipe("x", **bind(pipe, Spoil(9, np.nan, count=1), NaNGuard()))
    assert caught.value.share == 1 / 256


def test_every(pipe: ToyPipeline) -> None:
    with pytest.raises(LatentsNotFiniteError, match="after step 0 they were finite") as caught:
        pipe("x", **bind(pipe, Spoil(2, np.nan), NaNGuard(every=4)))
    assert caught.value.step == 4
    with pytest.raises(LatentsNotFiniteError) as caught:  # the last is checked all the same
        pipe("x", **bind(pipe, Spoil(9, np.nan), NaNGuard(every=4)))
    assert caught.value.step == 9


def test_bad_from_the_start(pipe: ToyPipeline) -> None:
    with pytest.raises(LatentsNotFiniteError, match="what the run began with"):
        pipe("x", **bind(pipe, Spoil(0, np.nan), NaNGuard()))


def test_stop_goes_back(pipe: ToyPipeline) -> None:
    with pytest.warns(RuntimeWarning, match="went back to the latents of step 4"):
        stopped = pipe("x", output_type="latent", **bind(pipe, Spoil(5, np.nan), NaNGuard("stop")))
    taken: list[Any] = []

    def take(pipeline: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> None:
        taken.append(tensors["latents"].data)

    pipe("x", **bind(pipe, take))
    assert len(taken) == 10
    np.testing.assert_array_equal(stopped, taken[4])


def test_stop_with_nothing_to_go_back_to(pipe: ToyPipeline) -> None:
    with pytest.raises(LatentsNotFiniteError):
        pipe("x", **bind(pipe, Spoil(0, np.nan), NaNGuard("stop")))


def test_warns_once_a_run(pipe: ToyPipeline) -> None:
    callbacks = bind(pipe, Spoil(2, np.nan), NaNGuard("warn"))
    for _ in range(2):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert np.isnan(pipe("x", output_type="latent", **callbacks)).any()
        messages = [str(w.message) for w in caught if "latents are not finite" in str(w.message)]
        assert len(messages) == 1
        assert "after step 2 of 10" in messages[0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("action", ["raise", "stop", "warn"])
def test_finite_latents_go_through(pipe: ToyPipeline, action: Any) -> None:
    plain = pipe("x", output_type="latent")
    guarded = pipe("x", output_type="latent", **bind(pipe, NaNGuard(action)))
    np.testing.assert_array_equal(plain, guarded)


@pytest.mark.filterwarnings("error")
def test_large_values_are_no_fault() -> None:
    """Their sum would overflow float16; that of zeros does not."""
    pipe = ToyPipeline(dtype="float16")
    pipe("x", num_inference_steps=1, **bind(pipe, Spoil(0, 65504.0, count=256), NaNGuard()))


def test_one_byte_a_picture_is_copied(pipe: ToyPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    from unicb_numpy.ops import NumpyOps

    copied: list[int] = []
    to_uint8 = NumpyOps.to_uint8

    def counted(self: NumpyOps, x: StrictTensor) -> Any:
        copied.append(x.data.size)
        return to_uint8(self, x)

    def refused(self: NumpyOps, x: StrictTensor) -> Any:
        raise AssertionError("latents are copied to the host")

    monkeypatch.setattr(NumpyOps, "to_uint8", counted)
    monkeypatch.setattr(NumpyOps, "to_numpy", refused)
    pipe(["a", "b", "c"], **bind(pipe, NaNGuard()))
    assert copied == [3] * 10


@pytest.mark.parametrize("action", ["abort", None, True, ["raise"]])
def test_unknown_action(action: Any) -> None:
    with pytest.raises(ValueError, match="action must be 'raise', 'stop' or 'warn'"):
        NaNGuard(action)


def test_every_is_a_number() -> None:
    with pytest.raises(ValueError, match="every"):
        NaNGuard(every=0)
    with pytest.raises(TypeError, match="every"):
        NaNGuard(every=1.5)  # type: ignore[arg-type]


def test_refused_without_latents() -> None:
    class NoLatents(ToyPipeline):
        _callback_tensor_inputs = ("prompt_embeds",)  # type: ignore[assignment]

    with pytest.raises(UnsupportedPipelineError, match="no tensor called 'latents'"):
        bind(NoLatents(), NaNGuard())


def test_error_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(LatentsNotFiniteError("so", 3, 0.5)))
    assert (str(error), error.step, error.share) == ("so", 3, 0.5)
