"""Find the MindSpore ranks that share a run, and let them agree by an AllGather of float32.

MindSpore's CPU backend has an AllGather of float32, but none of integers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from unicb.backend import Ranks
from unicb.errors import RankError

_Words = Sequence[npt.NDArray[Any]]


def _communication() -> Any:
    """Return mindspore.communication if it was initialised; else None. Imports nothing."""
    found = sys.modules.get("mindspore.communication")
    return found if found is not None and found.GlobalComm.INITED else None


def rank() -> tuple[int, int]:
    """Return the number of this process, and how many there are: in MindSpore's communication, or
    as msrun says in the environment."""
    if (communication := _communication()) is not None:
        return int(communication.get_rank()), int(communication.get_group_size())
    with suppress(KeyError, ValueError):
        return int(os.environ["RANK_ID"]), int(os.environ["RANK_SIZE"])
    return 0, 1


class NamedGroup:
    """A communication group of MindSpore, which has its own timeout for ranks that do not answer.

    Args:
        name: the group's name.
        size: number of ranks in the group.
    """

    def __init__(self, name: str, size: int) -> None:
        self._name, self._size = name, size
        self._gather: Any = None

    def agree(self, word: npt.NDArray[np.uint8], step: int) -> Callable[[float], _Words]:
        import mindspore
        from mindspore import ops

        if _communication() is None:
            raise RankError(
                f"at the end of step {step}, the ranks of {self._name!r} cannot be told: "
                "mindspore.communication was released"
            )
        self._gather = self._gather or ops.AllGather(self._name)
        try:
            found = self._gather(mindspore.Tensor(word.astype(np.float32)))
        except RuntimeError as error:
            raise self._failed(step, error) from error

        def heard(seconds: float) -> _Words:
            try:
                host = found.asnumpy()
            except RuntimeError as error:
                raise self._failed(step, error) from error
            return list(host.reshape(self._size, -1))

        return heard

    def _failed(self, step: int, error: Exception) -> RankError:
        when = f"at the end of step {step}" if step >= 0 else "before the first step"
        said = str(error).strip().partition("\n")[0]
        return RankError(
            f"rank {rank()[0]} does not hear from all {self._size} ranks of {self._name!r} {when}: "
            f"one is gone, hangs, or has not called the pipeline ({said})"
        )


_known: dict[str, Ranks] = {}


def ranks_of(group: Any) -> Ranks | None:
    """See :meth:`unicb.Backend.ranks`. mindone's models do not say over which ranks they are
    spread."""
    if group == "auto":
        return None
    if not isinstance(group, str):
        raise TypeError(
            "group takes the name of a group of mindspore.communication, such as "
            f"GlobalComm.WORLD_COMM_GROUP, 'auto' or None, not {group!r}"
        )
    communication = _communication()
    if communication is None:
        raise RankError(
            "bind was given a group, and this process does not communicate: call "
            "mindspore.communication.init first, in what msrun starts, or leave out group="
        )
    try:
        own, size = communication.get_rank(group), communication.get_group_size(group)
        numbers = _numbers(communication, group, size)
    except (RuntimeError, ValueError) as error:
        _known.pop(group, None)
        raise RankError(
            f"this process, rank {communication.get_rank()}, is not in the group {group!r} "
            f"that bind was given: {error}"
        ) from error
    known = _known.get(group)
    # A name may be that of another group by now.
    if known is None or (known.all, known.own) != (numbers, numbers[own]):
        known = _known[group] = Ranks(numbers, numbers[own], NamedGroup(group, size))
    return known


def _numbers(communication: Any, group: str, size: int) -> tuple[int, ...]:
    if group == communication.GlobalComm.WORLD_COMM_GROUP:
        return tuple(range(size))
    of_group = communication.get_world_rank_from_group_rank
    return tuple(int(of_group(group, number)) for number in range(size))
