"""Say what works on a pipeline, from its checkpoint or its class. No weights are loaded.

What works is what bind takes, and why not is the error that it raises. WHAT is

  a folder    with a model_index.json, as save_pretrained() writes it: its class, its scheduler
              and its models' configurations are looked at
  a class     of an installed framework, by its name: StableDiffusionXLPipeline, or a modular
              class such as FluxAutoBlocks
  a class     of one's own, by its path: my_package.pipelines.MyPipeline

Without --backend, it is explained on each installed backend whose framework has the class.

Exit code: 0 if bind takes the pipeline, on one of these at least; 1 if it refuses it whatever the
callbacks; 2 if it cannot be found.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

from unicb._skeleton import Checkpoint, skeleton
from unicb.backend import backend_names, get_backend, library_of
from unicb.errors import BackendLoadError
from unicb.explanation import Basis, Explanation, explained


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="WHAT", help="a folder, or a class")
    parser.add_argument("--backend", metavar="NAME", help="explain it on this one alone")
    parser.add_argument("--json", action="store_true", help="print a list, in JSON")


def run(options: argparse.Namespace) -> int:
    """Returns 1 if bind refuses the pipeline on each backend."""
    found = list(explanations(options.what, options.backend))
    if options.json:
        print(json.dumps([one.as_dict() for one in found], indent=2))
    else:
        print("\n\n".join(map(repr, found)))
    return int(all(one.refused is not None for one in found))


def explanations(what: str, backend: str | None = None) -> Iterator[Explanation]:
    """Yield what works on a checkpoint's pipeline, or a class, for each backend that has it.

    Raises:
        BackendNotFoundError, BackendLoadError: the named backend does not exist, or does not load.
        ValueError: there is no such folder or class; the message says where it was looked for.
    """
    checkpoint = Checkpoint(Path(what)) if Path(what).is_dir() else None
    name = what if checkpoint is None else checkpoint.class_name
    basis: Basis = "class" if checkpoint is None else "checkpoint"
    if "." in name:
        kind, library = _of_ones_own(name)
        found_one = explained(skeleton(kind, checkpoint, library), basis)
        if backend is not None and get_backend(backend).name != found_one.backend:
            raise ValueError(f"{name} is of backend {found_one.backend!r}, not of {backend!r}")
        yield found_one
        return
    looked_at = []
    has_any = False
    for library in _libraries(backend):
        looked_at.append(library.__name__)
        found = getattr(library, name, None)
        if isinstance(found, type):
            has_any = True
            yield explained(skeleton(found, checkpoint, library), basis)
    if not has_any:
        raise ValueError(
            f"no class {name!r} in {', '.join(looked_at) or 'any installed framework'}, and no "
            "folder of that name: for a class of your own, give its path, as in "
            "my_package.pipelines.MyPipeline"
        )


def _libraries(backend: str | None) -> Iterator[ModuleType]:
    for name in backend_names() if backend is None else (backend,):
        try:
            yield import_module(library_of(get_backend(name)))
        except (BackendLoadError, ImportError, OSError, RuntimeError, ValueError):
            if backend is not None:
                raise  # without --backend, a backend that does not load is passed over


def _of_ones_own(path: str) -> tuple[type, ModuleType]:
    module_name, _, name = path.rpartition(".")
    try:
        module = import_module(module_name)
        kind = getattr(module, name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"no class {path!r}: {error}") from error
    if not isinstance(kind, type):
        raise ValueError(f"{path!r} is a {type(kind).__name__}, and no class")
    return kind, module
