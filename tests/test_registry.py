"""Which backend serves a pipeline, and what is said when none does."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from typing import Any

import pytest

import unicb_numpy
from unicb import BackendLoadError, BackendNotFoundError, backend, bind
from unicb.backend import backend_for, backend_names, get_backend
from unicb_numpy.pipelines import ToyPipeline

Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Pretend that these entry points, and no others, are installed."""

    def pretend(**points: str) -> None:
        found = {name: EntryPoint(name, value, "unicb.backends") for name, value in points.items()}
        monkeypatch.setattr(backend, "_entry_points", lambda: found)

    backend._load_entry_point.cache_clear()
    yield pretend
    backend._load_entry_point.cache_clear()


class Claimant(unicb_numpy.NumpyBackend):
    name = "claimant"


class Faulty(unicb_numpy.NumpyBackend):
    name = "faulty"

    def owns(self, pipeline: object) -> bool:
        raise RuntimeError("not today")


class WithoutFramework(unicb_numpy.NumpyBackend):
    name = "bare"
    install = "pip install the-framework"

    @property
    def ops(self) -> Any:
        raise ModuleNotFoundError("No module named 'the_framework'")


claimant, faulty, bare, incomplete = Claimant(), Faulty(), WithoutFramework(), object()
NUMPY = "unicb_numpy:backend"


def foreign_pipeline(package: str, name: str = "DiffusionPipeline") -> Any:
    base = type(name, (), {"__module__": f"{package}.pipelines.pipeline_utils"})
    return type("StableDiffusionPipeline", (base,), {"__module__": f"{package}.pipelines"})()


def test_own_backends_are_installed() -> None:
    assert backend_names() == ("mindspore", "numpy", "torch")
    assert get_backend("numpy") is unicb_numpy.backend


def test_found_from_pipeline_and_its_subclasses(pipe: ToyPipeline) -> None:
    class Mine(ToyPipeline):
        pass

    assert backend_for(pipe) is backend_for(Mine()) is unicb_numpy.backend


@pytest.mark.parametrize("thing", [None, 3, object()])
def test_no_pipeline(thing: object) -> None:
    with pytest.raises(BackendNotFoundError, match="is no pipeline that an installed backend"):
        bind(thing)


def test_pipeline_of_a_framework_without_backend() -> None:
    with pytest.raises(BackendNotFoundError) as caught:
        bind(foreign_pipeline("ppdiffusers"))
    for part in ("StableDiffusionPipeline", "ppdiffusers", "mindspore, numpy, torch"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("package", "framework", "extra"),
    [("diffusers", "torch", "unicb[torch]"), ("mindone", "mindspore", "unicb[mindspore]")],
)
def test_pipeline_whose_framework_is_missing(
    monkeypatch: pytest.MonkeyPatch, package: str, framework: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, framework, None)
    monkeypatch.delitem(sys.modules, f"unicb_{framework}.ops", raising=False)
    with pytest.raises(BackendLoadError) as caught:
        bind(foreign_pipeline(package))
    assert extra in str(caught.value)
    assert isinstance(caught.value.__cause__, ImportError)


def test_named_but_unknown() -> None:
    with pytest.raises(BackendNotFoundError, match="mindspore, numpy, torch"):
        get_backend("tensorflow")


def test_named_but_framework_missing(install: Install) -> None:
    install(bare=f"{__name__}:bare")
    with pytest.raises(BackendLoadError, match="pip install the-framework") as caught:
        get_backend("bare")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_entry_point_to_nothing_is_an_error_when_it_may_be_needed(
    install: Install, pipe: ToyPipeline
) -> None:
    install(broken="no_such_module:backend")
    with pytest.raises(BackendLoadError, match="no_such_module") as caught:
        bind(pipe)
    assert isinstance(caught.value.__cause__, BackendLoadError)
    assert isinstance(caught.value.__cause__.__cause__, ImportError)


def test_entry_point_to_nothing_does_not_harm_other_pipelines(
    install: Install, pipe: ToyPipeline
) -> None:
    install(broken="no_such_module:backend", numpy=NUMPY)
    assert backend_for(pipe) is unicb_numpy.backend


def test_object_that_is_no_backend(install: Install) -> None:
    install(incomplete=f"{__name__}:incomplete")
    with pytest.raises(BackendLoadError, match="without name, install, ops"):
        get_backend("incomplete")


def test_two_claim_one_pipeline(install: Install, pipe: ToyPipeline) -> None:
    install(numpy=NUMPY, claimant=f"{__name__}:claimant")
    with pytest.raises(BackendNotFoundError, match="'claimant' and 'numpy' both claim"):
        bind(pipe)


def test_owns_raises(install: Install, pipe: ToyPipeline) -> None:
    install(faulty=f"{__name__}:faulty", numpy=NUMPY)
    with pytest.raises(BackendLoadError, match="'faulty' failed when asked") as caught:
        bind(pipe)
    assert isinstance(caught.value.__cause__, RuntimeError)
