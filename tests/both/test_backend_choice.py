"""The backend is chosen by the pipeline, whatever is installed or imported."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from sides import SIDES

from unicb import BackendNotFoundError, Callback, Step, UnsupportedPipelineError, bind
from unicb.backend import backend_for, backend_names
from unicb.testing import Case

CASE = Case("text2img", prompts=2)

# Builds a pipeline of the backend named first, binds and runs it; then none of the modules named
# after it may have been imported.
ALONE = """
import importlib, sys
from unicb import CFGCutoff, bind
from unicb.backend import backend_for
from unicb.testing import Case, load_harness
name, *others = sys.argv[1:]
harness = load_harness(name)
pipe = harness.build("text2img")
assert backend_for(pipe).name == name
harness.run(pipe, Case("text2img"), **bind(pipe, CFGCutoff(0.5)))
imported = [other for other in others if other in sys.modules]
assert not imported, imported
"""


class Look(Callback):
    """Keeps what kind of thing it is handed."""

    tensors = ("latents",)

    def __init__(self) -> None:
        self.tensors_seen: set[type] = set()
        self.operations_seen: set[str] = set()

    def on_step_end(self, step: Step) -> None:
        self.tensors_seen.add(type(step["latents"]))
        self.operations_seen.add(type(step.ops).__module__)
        step["latents"] = step.ops.clamp(step["latents"], -1.0, 1.0)


def test_all_backends_are_installed() -> None:
    assert set(backend_names()) >= {"mindspore", "numpy", "torch"}


@pytest.mark.parametrize("name", SIDES)
def test_the_pipeline_decides(pipes: dict[str, Any], tiny: dict[str, Any], name: str) -> None:
    """Both frameworks call the class the same, so only where it comes from can tell."""
    for pipe in (pipes[name], tiny[name]):
        assert type(pipe).__name__ == "StableDiffusionPipeline"
        assert backend_for(pipe).name == name
        assert backend_for(pipe) is SIDES[name].harness.backend


@pytest.mark.parametrize("name", SIDES)
def test_callbacks_get_tensors_and_operations_of_the_pipelines_framework(
    tiny: dict[str, Any], name: str
) -> None:
    look, harness = Look(), SIDES[name].harness
    out = harness.run(tiny[name], CASE, **bind(tiny[name], look))
    assert all(issubclass(kind, SIDES[name].tensor) for kind in look.tensors_seen)
    assert look.operations_seen == {f"unicb_{name}.ops"}
    assert abs(out).max() == 1.0


@pytest.mark.parametrize("name", SIDES)
def test_a_class_of_ones_own_goes_with_its_base(tiny: dict[str, Any], name: str) -> None:
    pipe = tiny[name]
    derived = type("Mine", (type(pipe),), {"__module__": "elsewhere"})
    mine = derived(**pipe.components, requires_safety_checker=False)
    assert backend_for(mine).name == name


def test_what_is_no_pipeline_has_no_backend(tiny: dict[str, Any]) -> None:
    for pipe in tiny.values():
        with pytest.raises(BackendNotFoundError, match="no pipeline that an installed backend"):
            backend_for(pipe.tokenizer)


def test_a_model_has_one_and_cannot_be_bound(tiny: dict[str, Any]) -> None:
    for name, pipe in tiny.items():
        assert backend_for(pipe.vae).name == name
        with pytest.raises(UnsupportedPipelineError, match="calls no callback"):
            bind(pipe.unet)


@pytest.mark.parametrize(
    ("name", "others"),
    [("torch", ["mindspore", "mindone"]), ("mindspore", ["diffusers", "unicb_torch.ops"])],
)
def test_the_other_framework_is_not_imported(name: str, others: list[str]) -> None:
    command = [sys.executable, "-c", ALONE, name, *others]
    env = {**os.environ, "PYTHONSAFEPATH": "1"}  # the sources must not hide the installed package
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
