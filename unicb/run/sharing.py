"""A binding's runs may be shared with other ranks: with which, and what each has to have alike."""

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

#: Types whose values are written the same in every process.
_PLAIN = (type(None), bool, int, float, complex, str, bytes)
#: When what one rank says takes effect: at the end of the next step, or at once.
Agree: TypeAlias = Literal["later", "now"]


@dataclass(frozen=True)
class Sharing:
    """Say that a binding's runs are shared with other ranks, and how.

    Attributes:
        backend: which carries the votes.
        ranks: that share them.
        agree: when a word of one of them takes effect.
        timeout: seconds to wait for the others.
        bound: what is bound, in words.
        settings: all that has to be the same on each rank, in words.
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
        """Return how many steps pass before a stop that only this rank asks for takes effect."""
        return 0 if self.agree == "now" else 1

    def digest(self) -> bytes:
        """Return 8 bytes that are the same where the settings are."""
        return sha256(f"{self.agree} {self.settings}".encode()).digest()[:8]


def sharing_of(
    target: Target, callbacks: Sequence[Callback], group: Any, agree: Agree, timeout: float
) -> Sharing | None:
    """Return with whom the runs of a binding are shared; None where with nobody.

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
    """Return the models that may say that they are spread over ranks: those that the loop calls, or
    where these are not known, all that the pipeline has."""
    if models := target.models:
        return models
    # Not its ``components``: the frameworks raise there for a class that they find odd.
    return [part for part in vars(target.pipeline).values() if callable(part)]


def described(value: Any) -> str:
    """Return a callback in words that are the same in every process, as far as it is one of unicb's
    own: what else there is may keep whatever it likes."""
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, Callback):
        name = f"{name} {name_of(value)}"
    if not kind.__module__.startswith("unicb."):
        return name
    # What it was made with, as one may write it, has what differs by rank.
    skipped = ("_given", *getattr(value, "_of_one_rank", ()))
    own = {key: each for key, each in vars(value).items() if key not in skipped}
    return f"{name}({_pairs(own)})"


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
