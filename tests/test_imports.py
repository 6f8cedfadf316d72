"""What gets imported when: nothing that a user does not need."""

from __future__ import annotations

import subprocess
import sys

import pytest

FRAMEWORKS = ("torch", "diffusers", "mindspore", "mindone", "jax", "transformers", "pytest")

LIST_IMPORTED = "print(*sorted({name.partition('.')[0] for name in sys.modules}))"

RUN_TOY_PIPELINE = """
from unicb_numpy.pipelines import ToyPipeline
pipe = ToyPipeline()
with unicb.bind(pipe, unicb.CFGCutoff(0.4), unicb.Preview(lambda frame: None)) as callbacks:
    pipe("a lighthouse", **callbacks)
"""


def imported_by(code: str) -> set[str]:
    program = f"import sys, unicb\n{code}\n{LIST_IMPORTED}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("code", ["", RUN_TOY_PIPELINE], ids=["import", "run"])
def test_no_framework_is_imported(code: str) -> None:
    assert imported_by(code).isdisjoint(FRAMEWORKS)


def test_import_needs_numpy_pillow_and_the_standard_library_only() -> None:
    bare = subprocess.run(
        [sys.executable, "-c", f"import sys, numpy, PIL.Image\n{LIST_IMPORTED}"],
        capture_output=True,
        text=True,
    )
    more = imported_by("") - set(bare.stdout.split()) - sys.stdlib_module_names
    assert more <= {"unicb"}


@pytest.mark.parametrize("package", ["unicb_numpy", "unicb_torch", "unicb_mindspore"])
def test_backend_packages_import_no_framework(package: str) -> None:
    assert imported_by(f"import {package}").isdisjoint(FRAMEWORKS)
