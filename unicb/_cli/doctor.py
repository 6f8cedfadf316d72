"""Say which backends are installed, and whether each of them loads with its framework.

Exit code: 0 if each backend whose framework is installed loads, 1 if one of them does not.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import unicb
from unicb._sheet import Line, as_text
from unicb.backend import Backend, backend_names, get_backend, library_of, load_backend
from unicb.errors import BackendLoadError

_OURS = ("numpy", "pillow")


@dataclass(frozen=True)
class Found:
    """``Found`` holds what ``doctor`` found out about one backend.

    Attributes:
        name: name of the backend's entry point.
        state: ``"loads"``; ``"not installed"``: its framework is not installed; or ``"broken"``.
        versions: the versions of those packages that it needs and that are installed.
        devices: the devices that its framework finds, such as ``"cuda:0"``.
        cause: why the backend does not load: the chain of errors, outermost first.
        remedy: what to do about it; None if the backend loads.
    """

    name: str
    state: str
    versions: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    cause: tuple[str, ...] = ()
    remedy: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Returns 1 if a backend is broken."""
    found = [examined(name) for name in backend_names()]
    versions = {"unicb": unicb.__version__, **_installed(_OURS)}
    python = platform.python_version()
    if options.json:
        backends = [asdict(one) for one in found]
        print(json.dumps({"python": python, "versions": versions, "backends": backends}, indent=2))
    else:
        title = f"Python {python}, {_listed(versions)}"
        print(as_text(title, (line for one in found for line in _lines(one))))
    return int(any(one.state == "broken" for one in found))


def examined(name: str) -> Found:
    """Try to load a backend and its framework, and return what was found."""
    try:
        backend = load_backend(name)
    except BackendLoadError as error:
        remedy = "install the distribution that brings this backend anew, or uninstall it"
        return Found(name, "broken", cause=_causes(error), remedy=remedy)
    versions = _installed(_distributions(backend))
    if missing := _missing(backend):
        cause = (f"{' and '.join(missing)} not installed",)
        return Found(name, "not installed", versions, cause=cause, remedy=backend.install)
    try:
        get_backend(name)
        import_module(library_of(backend) or "unicb")
        devices = tuple(backend.devices()) if hasattr(backend, "devices") else ()
    except Exception as error:
        return Found(name, "broken", versions, cause=_causes(error), remedy=backend.install)
    return Found(name, "loads", versions, devices)


def _missing(backend: Backend) -> list[str]:
    """Return those of the framework's package and its pipelines' package that are not installed."""
    found = [name for name in _distributions(backend)[:1] if name not in _installed([name])]
    package = getattr(backend, "package", "")
    return [*found, *([package] if package and find_spec(package) is None else [])]


def _distributions(backend: Backend) -> Sequence[str]:
    # A backend need not derive from `Backend`, and `distributions` is optional.
    return getattr(backend, "distributions", ())


def _installed(names: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _causes(error: BaseException | None) -> tuple[str, ...]:
    found = []
    while error is not None:
        found.append(f"{type(error).__name__}: {error}")
        error = error.__cause__ or error.__context__
    return tuple(dict.fromkeys(found))


def _lines(found: Found) -> Iterator[Line]:
    versions = f" ({_listed(found.versions)})" if found.versions else ""
    on = f", on {', '.join(found.devices)}" if found.devices else ""
    yield found.name, f"{found.state}{versions}{on}"
    for cause in found.cause:
        yield "", cause
    if found.remedy is not None:
        yield "", f"to mend it: {found.remedy}"


def _listed(versions: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())
