"""Build a pipeline without its weights, to ask what its class and configurations allow.

Each model is a stand-in with the model's class name and configuration, which computes nothing. The
scheduler is a real one, since it has no weights.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from unicb.errors import UnsupportedPipelineError
from unicb.pipelines import facts_for
from unicb.pipelines.scheduled import scheduled_loop

#: Names of the file that lists a checkpoint's components.
INDEXES = ("model_index.json", "modular_model_index.json")
_CONFIGS = ("config.json", "scheduler_config.json")
_SCHEDULER = "scheduler"


class Config(dict[str, Any]):
    """A configuration: a dict whose values are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class _StandIn:
    """A model without weights."""

    def __init__(self, config: Config | None) -> None:
        self.config = config

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise UnsupportedPipelineError(f"this {type(self).__name__} has no weights")


def stand_in(name: str, config: Config | None = None) -> Any:
    """Make a stand-in for a model whose class has this name."""
    return type(name, (_StandIn,), {})(config)


class Checkpoint:
    """A folder with a saved pipeline, of which only the configurations are read.

    Attributes:
        class_name: name of the pipeline's class, from the folder's index file.

    Raises:
        OSError: the folder does not exist.
        ValueError: the folder holds no pipeline.
    """

    def __init__(self, folder: Path) -> None:
        found = next((folder / name for name in INDEXES if (folder / name).is_file()), None)
        if found is None:
            raise ValueError(
                f"{str(folder)!r} has no {' or '.join(INDEXES)}: give the folder of a pipeline, as "
                "its save_pretrained() writes it, or the name of a class"
            )
        self._folder, self._index = folder, _read(found)
        name = self._index.get("_class_name")
        self.class_name = str(name[-1] if isinstance(name, list) else name)

    def components(self) -> Iterator[tuple[str, str]]:
        """Yield each component's name, with the name of its class."""
        for name, said in self._index.items():
            is_component = isinstance(said, list) and len(said) >= 2 and isinstance(said[1], str)
            if is_component and not name.startswith("_"):
                yield name, said[1]

    def config(self, name: str) -> dict[str, Any]:
        """Return a component's configuration; an empty dict if the folder has none."""
        paths = (self._folder / name / file for file in _CONFIGS)
        return next((_read(path) for path in paths if path.is_file()), {})

    def settings(self) -> Config:
        """Return the pipeline's own configuration, with the folder as ``_name_or_path``."""
        said = {name: value for name, value in self._index.items() if not isinstance(value, list)}
        return Config({**said, "_name_or_path": str(self._folder)})


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{str(path)!r} holds a {type(found).__name__}, and no configuration")
    return found


def skeleton(kind: type, checkpoint: Checkpoint | None, library: ModuleType) -> Any:
    """Make a pipeline of this class, without weights.

    Args:
        kind: the pipeline's class, or a modular pipeline's class of blocks.
        checkpoint: where the components' configurations are read; None: every component that the
            class names, without a configuration.
        library: the module that has the framework's model and scheduler classes.

    Raises:
        ValueError: no pipeline can be made of this class.
    """
    is_blocks = hasattr(kind, "init_pipeline")
    if is_blocks or any(base.__name__ == "ModularPipeline" for base in kind.__mro__):
        try:
            made = kind().init_pipeline() if is_blocks else kind()
        except Exception as error:  # blocks may raise anything
            why = f"{type(error).__name__}: {error}"
            raise ValueError(f"a {kind.__name__} cannot be made: {why}") from error
        return _modular(made, checkpoint, library)
    try:
        pipeline: Any = object.__new__(kind)
        attributes = vars(pipeline)
    except TypeError as error:
        raise ValueError(f"a {kind.__name__} is no pipeline: {error}") from error
    if checkpoint is None:
        attributes["_internal_dict"] = Config()
        named = {name: name for name in _named_by(kind, pipeline)}
    else:
        attributes["_internal_dict"] = said = checkpoint.settings()
        attributes["name_or_path"] = said["_name_or_path"]
        named = dict(checkpoint.components())
    for name, of in named.items():
        attributes[name] = _component(name, of, checkpoint, library)
    return pipeline


def _modular(pipeline: Any, checkpoint: Checkpoint | None, library: ModuleType) -> Any:
    """Give a modular pipeline, which is made without components, stand-ins for them."""
    named = {} if checkpoint is None else dict(checkpoint.components())
    for name in getattr(pipeline, "_component_specs", named):
        if getattr(pipeline, name, None) is None:
            of = named.get(name, name)
            vars(pipeline)[name] = _component(name, of, checkpoint, library)
    return pipeline


def _named_by(kind: type, pipeline: Any) -> Iterator[str]:
    """Yield the names of a class's components: the arguments of its ``__init__``, and the models
    that unicb's facts about its loop name."""
    for name, parameter in inspect.signature(kind.__init__).parameters.items():  # type: ignore[misc]
        if name != "self" and parameter.default in (inspect.Parameter.empty, None):
            yield name
    facts = facts_for(pipeline)
    if facts is not None:
        yield from (*facts.denoisers, *facts.companions)
    try:
        loop = scheduled_loop(kind)
    except UnsupportedPipelineError:
        return
    yield from () if loop is None else (*loop.models, _SCHEDULER)


def _component(name: str, of: str, checkpoint: Checkpoint | None, library: ModuleType) -> Any:
    if checkpoint is None:
        return _Scheduler() if name == _SCHEDULER else stand_in(of)
    said = checkpoint.config(name)
    kind = getattr(library, of, None)
    if kind is not None and name.endswith(_SCHEDULER) and hasattr(kind, "from_config"):
        return kind.from_config(said)
    return stand_in(of, Config({**_defaults(kind), **said}))


def _defaults(kind: Any) -> Mapping[str, Any]:
    """Return the defaults of a model class's arguments, for what its configuration leaves out."""
    if not isinstance(kind, type):
        return {}
    found = inspect.signature(kind.__init__).parameters.values()  # type: ignore[misc]
    empty = inspect.Parameter.empty
    return {one.name: one.default for one in found if one.default is not empty}


class _Scheduler:
    """A scheduler of unknown class."""

    def step(self, *args: Any, **kwargs: Any) -> Any:
        raise UnsupportedPipelineError("this scheduler stands for another")

    def scale_model_input(self, sample: Any, timestep: Any = None) -> Any:
        return sample
