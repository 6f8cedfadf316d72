"""Define what a backend has to provide to the conformance suite."""

from __future__ import annotations

import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from unicb.backend import ENTRY_POINT_GROUP, Around, Backend, get_backend
from unicb.errors import BackendLoadError
from unicb.ops import Tensor

#: Optional capabilities of a backend. It has those whose names its harness lists among its kinds or
#: dtypes; the report names the others.
CAPABILITIES: Mapping[str, str] = MappingProxyType(
    {
        "bfloat16": "a dtype that the device can compute with",
        "order-2": "a kind: text to image with a scheduler that takes two half steps a step",
        "inpaint": "a kind: the loop keeps a mask of its own, out of any callback's reach",
        "controlnet": "a kind: a second model is called with the doubled batch",
        "ip-adapter": "a kind: image embeddings in nested containers",
        "prompts": "a kind: text to image that is called with texts, and encodes them itself",
    }
)


#: Environment variable: if set, every check is made on every kind, whatever the harness samples.
EVERY_KIND = "UNICB_TESTING_EVERY_KIND"


def kinds_of(harness: Harness, *, sampled: bool) -> tuple[str, ...]:
    """Return the kinds on which a check is made; ``sampled``: only
    :attr:`Harness.sampled_kinds`."""
    every = not sampled or EVERY_KIND in os.environ
    return harness.kinds if every else harness.sampled_kinds or harness.kinds


def missing_capabilities(harness: Harness) -> tuple[str, ...]:
    """Return the names of the capabilities that the harness does not list, which are not
    checked."""
    return tuple(name for name in CAPABILITIES if name not in (*harness.kinds, *harness.dtypes))


@dataclass(frozen=True)
class Case:
    """A case is one set of arguments for a tiny pipeline. The same case gives the same bits every
    time."""

    kind: str
    prompts: int = 1
    images_per_prompt: int = 1
    steps: int = 4
    guidance_scale: float = 5.0

    @property
    def rows(self) -> int:
        """Return how many rows the latents have."""
        return self.prompts * self.images_per_prompt


class Harness(ABC):
    """A harness makes tiny random-weight pipelines of one framework, and observes their inside.

    Everything that only tests need is here, never on the backend. Checks do not look at a backend's
    name: they run for what is listed here. ``CAPABILITIES`` has the names with a meaning.
    """

    #: The backend under test.
    backend: Backend
    #: Kinds of pipeline that :meth:`build` makes. The first must be a plain text-to-image pipeline.
    kinds: tuple[str, ...]
    #: Kinds that take only one prompt, with any number of images of it.
    single_prompt_kinds: tuple[str, ...] = ()
    #: Kinds for checks of a run's state and end, if all kinds would take too long; empty: all
    #: kinds. Checks of guidance are made on every kind: the cut with every batch on these kinds,
    #: and with two prompts of two images on the others.
    sampled_kinds: tuple[str, ...] = ()
    #: Names of the floating dtypes that the framework has on this device, widest last.
    dtypes: tuple[str, ...]
    #: True if the framework crashes when two pipelines run in two threads at once.
    one_thread: bool = False
    #: The device on which the checks run, for the report.
    device: str = "cpu"
    #: Checks that fail through no fault of the backend: their test ids, such as
    #: "test_clamp[float16]", with the reasons. Strict: a listed check that passes is an error, and
    #: so is an unknown id.
    expected_failures: Mapping[str, str] = MappingProxyType({})

    @abstractmethod
    def build(self, kind: str) -> Any:
        """Build a new tiny pipeline with seeded random weights, without any download."""

    @abstractmethod
    def run(self, pipeline: Any, case: Case, **keywords: Any) -> npt.NDArray[Any]:
        """Call the pipeline as ``case`` says, from seeded noise. ``keywords`` are the binding's two
        arguments, and maybe further arguments of the call. Returns the final latents on the host,
        in float32.
        """

    @abstractmethod
    def tensor(self, array: npt.NDArray[Any], dtype: str) -> Tensor:
        """Return the array as a tensor of one of :attr:`dtypes`."""

    def draw(self) -> npt.NDArray[Any]:
        """Draw a few numbers from the framework's global random generator, which its models and
        pipelines use by default; return an empty array if there is none."""
        return np.empty(0)

    @abstractmethod
    def spy(self, pipeline: Any, around: Around) -> Callable[[], None]:
        """Let ``around`` answer the calls of the pipeline's denoiser; return a function that undoes
        this.

        Like :meth:`unicb.Backend.hook`, but by other means, inside any hook of the backend, so that
        it sees the denoiser's real arguments.
        """

    @abstractmethod
    def traces(self, pipeline: Any) -> object:
        """Return everything that hooks and settings may leave behind on the pipeline: hook
        registries, instance attributes of the denoisers, the guidance scale. Results are compared
        by ``==``."""


def load_harness(name: str) -> Harness:
    """Return the object ``harness`` in the module ``harness`` of the backend's package.

    Raises:
        BackendNotFoundError, BackendLoadError: the backend or its harness does not exist, or does
            not load.
    """
    get_backend(name)
    package = next(iter(entry_points(group=ENTRY_POINT_GROUP, name=name))).module
    try:
        harness = importlib.import_module(f"{package}.harness").harness
        check_harness(harness)
    except Exception as error:
        raise BackendLoadError(
            f"backend {name!r} has no harness for the suite: expected `harness` in the module "
            f"{package}.harness ({type(error).__name__}: {error})"
        ) from error
    return cast(Harness, harness)


def check_harness(harness: object) -> None:
    """Raise TypeError if ``harness`` is no Harness, or lacks an attribute, which the message
    names."""
    if not isinstance(harness, Harness):
        raise TypeError(f"a {type(harness).__name__} is no unicb.testing.Harness")
    missing = [name for name in ("backend", "kinds", "dtypes") if not getattr(harness, name, None)]
    if missing:
        raise TypeError(f"{type(harness).__name__} lacks {', '.join(missing)}")
    if unknown := set(harness.sampled_kinds) - set(harness.kinds):
        names = ", ".join(sorted(unknown))
        raise TypeError(f"{type(harness).__name__} samples kinds that it has not: {names}")
