"""What gets imported when: nothing that a user does not need."""

from __future__ import annotations

import ast
import importlib
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import unicb
from unicb._lazy import lazy

FRAMEWORKS = ("torch", "diffusers", "mindspore", "mindone", "jax", "transformers", "pytest")
PACKAGES = ("unicb", "unicb.callbacks", "unicb.latents", "unicb.sinks")

LIST_IMPORTED = "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
LIST_MODULES = "print(*sorted(sys.modules))"

RUN_TOY_PIPELINE = """
from unicb_numpy.pipelines import ToyPipeline
pipe = ToyPipeline()
with unicb.bind(pipe, unicb.CFGCutoff(0.4), unicb.Preview(lambda frame: None)) as callbacks:
    pipe("a lighthouse", **callbacks)
"""

NOTE_WHAT_STEPS_IMPORT = """
from unicb_numpy.pipelines import ToyPipeline
pipe = ToyPipeline()
preview = unicb.Preview(lambda frame: None)
callbacks = unicb.bind(pipe, unicb.CFGCutoff(0.4), preview, unicb.Interrupt(8))
before = set(sys.modules)
pipe("a lighthouse", **callbacks)
"""


def printed_by(program: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def imported_by(code: str) -> set[str]:
    return printed_by(f"import sys, unicb\n{code}\n{LIST_IMPORTED}")


@pytest.mark.parametrize("code", ["", RUN_TOY_PIPELINE], ids=["import", "run"])
def test_no_framework_is_imported(code: str) -> None:
    assert imported_by(code).isdisjoint(FRAMEWORKS)


def test_import_needs_numpy_pillow_and_the_standard_library_only() -> None:
    bare = printed_by(f"import sys, numpy, PIL.Image\n{LIST_IMPORTED}")
    more = imported_by("from unicb import *") - bare - sys.stdlib_module_names
    assert more <= {"unicb"}


@pytest.mark.parametrize("package", ["unicb_numpy", "unicb_torch", "unicb_mindspore"])
def test_backend_packages_import_no_framework(package: str) -> None:
    assert imported_by(f"import {package}").isdisjoint(FRAMEWORKS)


def test_import_loads_nothing_before_it_is_used() -> None:
    loaded = printed_by(f"import sys, unicb\n{LIST_MODULES}")
    assert {name for name in loaded if name.startswith("unicb")} == {"unicb", "unicb._lazy"}
    assert loaded.isdisjoint({"numpy", "PIL", "asyncio", "ast", "tomllib", "importlib.metadata"})


def test_what_is_used_loads_no_more_than_it_needs() -> None:
    used = "from unicb import CFGCutoff, Preview, bind"
    loaded = printed_by(f"import sys\n{used}\n{LIST_MODULES}")
    others = {"asynchronous", "streaming", "latents.fit", "latents._vae", "latents.decoders"}
    others |= {f"callbacks.{name}" for name in ("timing", "trajectory", "prompts", "ip_adapter")}
    assert loaded.isdisjoint({"asyncio", *(f"unicb.{name}" for name in others)})


def test_a_step_imports_nothing() -> None:
    """What a run needs is there when ``bind`` returns: no step waits for an import."""
    program = (
        f"import sys, unicb\n{NOTE_WHAT_STEPS_IMPORT}\nprint(*sorted(set(sys.modules)-before))"
    )
    assert {name for name in printed_by(program) if name.startswith("unicb")} == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there(package: str) -> None:
    module = importlib.import_module(package)
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        assert getattr(module, name) is vars(module)[name]  # found once, and kept


@pytest.mark.parametrize("package", PACKAGES)
def test_a_star_import_gives_all_of_them(package: str) -> None:
    names = printed_by(f"from {package} import *\nprint(*[n for n in dir() if n[:2] != '__'])")
    assert names == {*importlib.import_module(package).__all__} - {"__version__"}


@pytest.mark.parametrize("package", PACKAGES)
def test_type_checkers_see_what_is_imported(package: str) -> None:
    """The imports under TYPE_CHECKING, the table beside them and ``__all__`` are of one mind."""
    module = importlib.import_module(package)
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    [choice] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        (str(node.module), alias.name)
        for node in choice.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    [table] = [node for node in ast.walk(choice) if isinstance(node, ast.Dict)]
    entries: dict[str, tuple[str, ...]] = ast.literal_eval(table)
    assert {(path, name) for path, names in entries.items() for name in names} == seen
    assert {name for _, name in seen} == {*module.__all__} - {"__version__"}


def test_modules_are_attributes() -> None:
    found = printed_by("import unicb\nprint(unicb.latents.Layout.__name__, unicb.sinks.__name__)")
    assert found == {"Layout", "unicb.sinks"}


def test_an_unknown_name_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="module 'unicb' has no attribute 'CFGCutof'"):
        unicb.CFGCutof  # noqa: B018
    with pytest.raises(ImportError, match="CFGCutof"):
        exec("from unicb import CFGCutof")


def test_classes_are_pickled_by_where_they_are_defined() -> None:
    assert pickle.loads(pickle.dumps(unicb.PipelineFacts)) is unicb.PipelineFacts
    assert b"unicb.pipelines" in pickle.dumps(unicb.PipelineFacts)


def test_an_import_that_fails_says_why() -> None:
    """It is not an AttributeError, which ``hasattr`` would swallow."""
    getattribute, _ = lazy("unicb", {"unicb.missing": ("Missing",)})
    with pytest.raises(ModuleNotFoundError, match=r"unicb\.missing"):
        getattribute("Missing")
