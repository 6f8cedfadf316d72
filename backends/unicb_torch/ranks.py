"""Find the torch.distributed ranks that share a run, and let them agree on the host, over gloo."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from unicb.backend import Ranks
from unicb.errors import RankError, UnsupportedPipelineError

_Words = Sequence[npt.NDArray[Any]]
#: How often ranks look whether the others have come; and how long they take to join then.
_LOOK_SECONDS = 0.002
_LONGEST_TO_JOIN = timedelta(seconds=10)


def distributed() -> Any:
    """Return torch.distributed if it has a process group; else None. Imports nothing."""
    found = sys.modules.get("torch.distributed")
    there_is = found is not None and found.is_available() and found.is_initialized()
    return found if there_is else None


def rank() -> tuple[int, int]:
    """Return the number of this process, and how many there are: in the process group, or as
    torchrun or accelerate say in the environment."""
    if (dist := distributed()) is not None:
        return int(dist.get_rank()), int(dist.get_world_size())
    with suppress(KeyError, ValueError):
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return 0, 1


class GlooGroup:
    """Some ranks with a gloo group of their own, made on first use, so that unicb's messages wait
    for no device and do not delay other communication.

    Args:
        dist: the module torch.distributed.
        ranks: the numbers of the processes.
        timeout: the most seconds to wait for the other ranks.
    """

    def __init__(self, dist: Any, ranks: tuple[int, ...], timeout: float) -> None:
        self._dist, self._ranks = dist, ranks
        self._timeout = timedelta(seconds=timeout)
        self._group: Any = None

    def agree(self, word: npt.NDArray[np.uint8], step: int) -> Callable[[float], _Words]:
        import torch

        own = torch.from_numpy(word)
        found = [torch.empty_like(own) for _ in self._ranks]
        try:
            if distributed() is None:
                raise RuntimeError("the process group was destroyed")
            self._group = self._group or self._met()
            work = self._group.allgather([found], [own])
        except (RuntimeError, ValueError) as error:
            raise self._failed(step, error) from error

        def heard(seconds: float) -> _Words:
            try:
                work.wait(timedelta(seconds=seconds))
            except RuntimeError as error:
                raise self._failed(step, error) from error
            return [each.numpy() for each in found]

        return heard

    def _met(self) -> Any:
        """Return a new group of the ranks, made without torch's list of groups: its names depend on
        the number of groups in a process, which may differ between processes.

        Each rank announces itself by a token, new each time, and removes it whether or not the
        group is made, so that no rank meets the rest of an earlier attempt.
        """
        dist = self._dist
        place = "unicb/" + "-".join(map(str, self._ranks)) + f"/{self._timeout.total_seconds():g}/"
        store = dist.PrefixStore(place, dist.distributed_c10d._get_default_store())
        own = self._ranks.index(dist.get_rank())
        names = [f"token-{number}" for number in range(len(self._ranks))]
        store.set(names[own], uuid4().hex)
        until = time.monotonic() + self._timeout.total_seconds()
        try:
            while time.monotonic() < until:
                if store.check(names):
                    with suppress(RuntimeError):  # the other ranks have seen other tokens
                        return self._joined(store, "-".join(map(str, map(store.get, names))), own)
                time.sleep(_LOOK_SECONDS)
            raise RuntimeError("not all have come")
        finally:
            with suppress(RuntimeError):
                store.delete_key(names[own])

    def _joined(self, store: Any, name: str, own: int) -> Any:
        joining = self._dist.PrefixStore(name + "/", store)
        longest = min(self._timeout, _LONGEST_TO_JOIN)
        group = self._dist.ProcessGroupGloo(joining, own, len(self._ranks), longest)
        group._set_default_timeout(self._timeout)
        return group

    def _failed(self, step: int, error: Exception) -> RankError:
        """Return the error to raise, and drop the group: the next run makes a new one."""
        self._group = None
        when = f"at the end of step {step}" if step >= 0 else "before the first step"
        said = str(error).strip().partition("\n")[0]
        return RankError(
            f"rank {self._dist_rank()} does not hear from all of the ranks "
            f"{', '.join(map(str, self._ranks))} {when}: one is gone, hangs, or has not called the "
            f"pipeline within {self._timeout.total_seconds():g} s ({said})"
        )

    def _dist_rank(self) -> int:
        return rank()[0]


#: Known ranks, by the id of the default process group, which changes when it is made again.
_known: dict[int, tuple[Any, dict[tuple[tuple[int, ...], float], Ranks]]] = {}


def ranks_of(group: Any, models: Sequence[Any], timeout: float) -> Ranks | None:
    """See :meth:`unicb.Backend.ranks`."""
    is_auto = isinstance(group, str) and group == "auto"
    dist = distributed()
    if dist is None:
        if is_auto:
            return None
        raise RankError(
            "bind was given a group, and torch.distributed has no process group: call "
            "torch.distributed.init_process_group first, or leave out group="
        )
    numbers = _spread_over(dist, models) if is_auto else _members(dist, group)
    if len(numbers) < 2:
        return None
    world = dist.group.WORLD
    if id(world) not in _known:
        _known.clear()
        _known[id(world)] = world, {}
    known = _known[id(world)][1]
    key = numbers, timeout
    if key not in known:
        known[key] = Ranks(numbers, dist.get_rank(), GlooGroup(dist, *key))
    return known[key]


def _members(dist: Any, group: Any) -> tuple[int, ...]:
    """Return the numbers of the ranks of a process group, or of a mesh."""
    if group is dist.GroupMember.NON_GROUP_MEMBER:
        raise RankError(
            f"this process, rank {dist.get_rank()}, is not in the group that bind was given: bind "
            "with a group that it is in, or with group=None"
        )
    if hasattr(group, "get_coordinate"):
        numbers = _of_mesh(group)
    elif isinstance(group, dist.ProcessGroup):
        try:
            numbers = tuple(dist.get_process_group_ranks(group))
        except KeyError as error:
            raise RankError("the process group that bind was given was destroyed") from error
    else:
        raise TypeError(
            "group takes a torch.distributed ProcessGroup or a DeviceMesh, 'auto' or None, not a "
            f"{type(group).__qualname__} ({group!r})"
        )
    if dist.get_rank() not in numbers:
        raise RankError(
            f"this process, rank {dist.get_rank()}, is not in the group of the ranks "
            f"{', '.join(map(str, numbers))} that bind was given"
        )
    return numbers


def _of_mesh(mesh: Any) -> tuple[int, ...]:
    return tuple(sorted(mesh.mesh.flatten().tolist()))


def _spread_over(dist: Any, models: Sequence[Any]) -> tuple[int, ...]:
    """Return the ranks over which these models say that they are spread."""
    own = dist.get_rank()
    found = {numbers for model in models for numbers in _said_by(model) if own in numbers}
    if not found:
        return (own,)
    most = max(found, key=len)
    if all(set(numbers) <= set(most) for numbers in found):
        return most
    raise UnsupportedPipelineError(
        f"the denoiser is spread over the ranks {' and over '.join(map(str, sorted(found)))}, and "
        "which of all ranks share a run does not follow from that: say it in bind(..., group=...)"
    )


def _said_by(model: Any) -> Iterator[tuple[int, ...]]:
    config = getattr(model, "_parallel_config", None)
    context = getattr(config, "context_parallel_config", None)
    tensor = getattr(config, "tensor_parallel_config", None)
    if (mesh := getattr(context, "_flattened_mesh", None)) is not None:
        yield _of_mesh(mesh)
    if (mesh := getattr(tensor, "_mesh", None)) is not None:
        yield _of_mesh(mesh)
    if callable(modules := getattr(model, "modules", None)):
        yield from _of_wrapped(modules())
    if callable(parameters := getattr(model, "parameters", None)):
        yield from _of_parameters(parameters())


def _of_wrapped(modules: Iterable[Any]) -> Iterator[tuple[int, ...]]:
    """Yield the ranks of modules wrapped by FSDP's first version, whose parameters are no
    DTensors."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    wrapper = getattr(fsdp, "FullyShardedDataParallel", None)
    for module in modules:
        if wrapper is not None and isinstance(module, wrapper):
            yield tuple(sorted(distributed().get_process_group_ranks(module.process_group)))


def _of_parameters(parameters: Iterable[Any]) -> Iterator[tuple[int, ...]]:
    """Yield the ranks along those axes of a mesh over which DTensors are split."""
    seen = set()
    for parameter in parameters:
        mesh = getattr(parameter, "device_mesh", None)
        if mesh is None:
            continue
        split = tuple(not placement.is_replicate() for placement in parameter.placements)
        if any(split) and (id(mesh), split) not in seen:
            seen.add((id(mesh), split))
            yield _along(mesh, split)


def _along(mesh: Any, split: Sequence[bool]) -> tuple[int, ...]:
    """Return the ranks of the mesh that differ from this one along these axes only."""
    own = mesh.get_coordinate()
    if own is None:
        return ()
    at = tuple(slice(None) if is_split else own[axis] for axis, is_split in enumerate(split))
    return tuple(sorted(mesh.mesh[at].flatten().tolist()))


_claimed: dict[str, int] = {}


def claim(name: str) -> int:
    """See :meth:`unicb.Backend.claim`."""
    dist = distributed()
    if dist is None:
        return rank()[0]
    if name not in _claimed:
        store = dist.distributed_c10d._get_default_store()
        by = store.compare_set(f"unicb/{name}", "", str(dist.get_rank()))
        _claimed[name] = int(by)
    return _claimed[name]
