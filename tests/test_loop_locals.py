"""A loop's local variables are read and left as they were: nothing is kept, and nothing is lost."""

from __future__ import annotations

import subprocess
import sys
import weakref
from typing import Any

import numpy as np

from unicb.run.loop import FrameId, is_given, loop_frame_id, loop_locals
from unicb_numpy.ops import StrictTensor

SCRIPT = """
from unicb import Preview, bind
from unicb_numpy.pipelines import ToyPipeline

pipe, steps, shown = ToyPipeline(), [], []
# The loop of a pipeline, as a script has it that takes it apart.
pipe("x", num_inference_steps=3, callback_on_step_end=lambda *step: steps.append(step) or {})
callback = bind(pipe, Preview(shown.append))["callback_on_step_end"]
for _, index, timestep, tensors in steps:
    callback(pipe, index, timestep, tensors)
print(len(shown), "previews")
"""


class Watched(StrictTensor):
    __slots__ = ("__weakref__",)


def watched() -> tuple[Watched, weakref.ref[Watched]]:
    tensor = Watched(np.zeros((1, 4, 8, 8)))
    return tensor, weakref.ref(tensor)


def here() -> FrameId:
    return loop_frame_id(object(), sys._getframe(1))


def test_no_tensor_is_kept_by_looking() -> None:
    """As when a loop replaces its latents: the old ones are freed at once, by no collector."""

    def loop() -> None:
        latents, latents_alive = watched()
        other, other_alive = watched()
        found = loop_locals(here(), ["latents", "no_such_name"])
        assert found == {"latents": latents}
        del found, latents, other
        assert latents_alive() is None
        assert other_alive() is None

    loop()


def test_no_tensor_is_kept_by_looking_for_who_was_given_a_callback() -> None:
    def loop(callback_on_step_end: Any) -> None:
        latents, alive = watched()
        assert is_given(callback_on_step_end)
        del latents
        assert alive() is None

    loop(print)


def test_what_was_found_outlives_the_loops_name() -> None:
    def loop() -> dict[str, Any]:
        latents, _ = watched()
        found = loop_locals(here(), ["latents"])
        del latents
        return found

    assert isinstance(loop()["latents"], Watched)


def test_a_loop_that_is_no_function_loses_no_names() -> None:
    """A script that has the loop itself; its local variables are its module's."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("3 previews\n", "")
