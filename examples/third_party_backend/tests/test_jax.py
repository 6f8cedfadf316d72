"""Test what this distribution promises beyond the conformance suite."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from unicb.backend import get_backend

import unicb_jax
from unicb_jax.pipelines import JaxPipeline

README = Path(__file__).parents[1] / "README.md"
SOURCES = sorted(Path(unicb_jax.__file__).parent.glob("*.py"))

TWO_DEVICES = """
import jax, numpy
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from unicb_jax import backend

first, second = jax.devices()
array = numpy.ones((3, 2), numpy.float32)
there = jax.device_put(array, second)
assert backend.ops.from_numpy(array, there).devices() == {second}

spread = NamedSharding(Mesh((first, second), "rows"), PartitionSpec("rows"))
rows = jax.device_put(numpy.ones((4, 2), numpy.float32), spread)
row = backend.ops.from_numpy(array[0], rows)
assert (backend.ops.to_numpy(rows + row) == 2).all()
"""


def run(code: str, folder: Path | None = None, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported(source: Path) -> Iterator[str]:
    """Yield the full names of what a file imports, and of the modules that it imports from."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_nothing_private_is_imported() -> None:
    names = [name for source in SOURCES for name in imported(source)]
    assert "unicb.backend.Around" in names
    public = [name for name in names if name != "__future__.annotations"]
    assert [name for name in public if any(p.startswith("_") for p in name.split("."))] == []


def test_importing_imports_no_jax() -> None:
    code = "import sys, unicb_jax; unicb_jax.backend.owns(object()); print('jax' in sys.modules)"
    assert run(code) == "False\n"


def test_backend_is_found_by_its_entry_point() -> None:
    assert get_backend("jax") is unicb_jax.backend


def test_host_arrays_go_to_the_device_of_what_they_shall_be_like() -> None:
    run(TWO_DEVICES, XLA_FLAGS="--xla_force_host_platform_device_count=2")


@pytest.mark.parametrize("wide", [False, True])
def test_float64_is_checked_where_jax_has_it(wide: bool) -> None:
    code = "from unicb_jax.harness import harness; print('float64' in harness.dtypes)"
    assert run(code, JAX_ENABLE_X64=str(int(wide))) == f"{wide}\n"


@pytest.mark.parametrize("first", [0, 1])
def test_hooks_nest_and_go_in_any_order(first: int) -> None:
    pipe = JaxPipeline()
    unet = pipe.unet
    before = dict(vars(unet))
    called: list[str] = []

    def noting(name: str) -> Any:
        def around(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            called.append(name)
            return call(*args, **kwargs)

        return around

    removers = [unicb_jax.backend.hook(unet, noting(name)) for name in ("inner", "outer")]
    pipe("a lighthouse", num_inference_steps=1)
    assert called == ["outer", "inner"]
    removers.pop(first)()
    pipe("a lighthouse", num_inference_steps=1)
    assert called[2:] == [["outer", "inner"][first]]
    removers.pop()()
    assert vars(unet) == before


def test_readme(tmp_path: Path) -> None:
    [code] = re.findall(r"^```python\n(.*?)^```$", README.read_text("utf-8"), re.M | re.S)
    run(code, tmp_path)
    assert len(list((tmp_path / "steps").iterdir())) == 10
