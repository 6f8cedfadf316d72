"""Find the ranks that share a binding's runs, and describe what has to be the same on each."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from unicb.backend import Backend, Ranks
from unicb.callback import Callback, name_of

if TYPE_CHECKING:
    from unicb.pipelines.target import Target

#: Types whose ``repr`` is the same in every process.
_PLAIN = (type(None), bool, int, float, complex, str, bytes)
#: Variables of a loop, or of its blocks' state, that say what is to be made.
REQUEST = (
    *("prompt", "prompt_2", "negative_prompt", "height", "width", "num_frames"),
    *("num_images_per_prompt", "num_videos_per_prompt"),
)
#: When one rank's request takes effect: at the end of the next step, or at once.
Agree: TypeAlias = Literal["later", "now"]


@dataclass(frozen=True)
class Sharing:
    """Say that a binding's runs are shared with other ranks, and how.

    Attributes:
        backend: the backend that sends the votes.
        ranks: the ranks that share the runs.
        agree: when one rank's request takes effect.
        timeout: seconds to wait for the other ranks.
        bound: the bound callbacks, in words.
        settings: everything that has to be the same on each rank, in words.
    """

    backend: Backend
    ranks: Ranks
    agree: Agree
    timeout: float
    bound: str
    settings: str

    @property
    def is_first(self) -> bool:
        """Return whether this is the group's first rank."""
        return self.ranks.own == self.ranks.all[0]

    @property
    def stop_delay(self) -> int:
        """Return how many further steps are computed before this rank's request to stop takes
        effect."""
        return 0 if self.agree == "now" else 1

    def digest(self) -> bytes:
        """Return a hash of the settings, 8 bytes."""
        return sha256(f"{self.agree} {self.settings}".encode()).digest()[:8]


def sharing_of(
    target: Target, callbacks: Sequence[Callback], group: Any, agree: Agree, timeout: float
) -> Sharing | None:
    """Return how a binding's runs are shared; None if they are not.

    Raises:
        RankError, TypeError, UnsupportedPipelineError: as from :meth:`unicb.Backend.ranks`.
    """
    backend = target.backend
    ranks = backend.ranks(group, denoisers_of(target), timeout)
    if ranks is None or len(ranks.all) < 2:
        return None
    names = ", ".join(map(name_of, callbacks)) or "nothing"
    settings = "; ".join((target.name, *map(described, callbacks)))
    return Sharing(backend, ranks, agree, timeout, f"{target.name} with {names}", settings)


def denoisers_of(target: Target) -> list[Any]:
    """Return the models that may be spread over ranks: those that the loop calls, or all of the
    pipeline's models if these are not known."""
    if models := target.models:
        return models
    # Not ``pipeline.components``, which raises for classes that the frameworks do not expect.
    return [part for part in vars(target.pipeline).values() if callable(part)]


def described(value: Any) -> str:
    """Return a callback in words that are the same in every process: with arguments for unicb's own
    callbacks, else only by class, since other objects may keep anything."""
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, Callback):
        name = f"{name} {name_of(value)}"
    if not kind.__module__.startswith("unicb."):
        return name
    # Arguments such as paths may contain the rank.
    skipped = ("_given", *getattr(value, "_of_one_rank", ()))
    own = {key: each for key, each in vars(value).items() if key not in skipped}
    return f"{name}({_pairs(own)})"


def request_of(given: Mapping[str, Any]) -> int:
    """Return a hash, 31 bits, of the loop's variables of :data:`REQUEST`. Of tensors and other
    objects only the class counts, so that nothing is read from a device."""
    return int.from_bytes(sha256(_pairs(given).encode()).digest()[:4]) >> 1


def _pairs(values: Mapping[Any, Any]) -> str:
    return ", ".join(f"{key}={_part(values[key])}" for key in sorted(values, key=str))


def _part(value: Any) -> str:
    if type(value) in _PLAIN:
        return repr(value)
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}{sha256(value.tobytes()).hexdigest()[:16]}"
    if isinstance(value, Mapping):
        return f"{{{_pairs(value)}}}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_part, value))}]"
    if isinstance(value, types.FunctionType):
        return f"{value.__module__}.{value.__qualname__}"
    if is_dataclass(value) and not isinstance(value, type):
        return _pairs({field.name: getattr(value, field.name) for field in fields(value)})
    kind = type(value)
    if kind.__module__.startswith("unicb.callbacks"):
        return described(value) if hasattr(value, "__dict__") else kind.__qualname__
    return kind.__qualname__
