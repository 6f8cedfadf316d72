"""Which ranks a group of MindSpore's has, by its name: on a stand-in for its communication."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from unicb import RankError
from unicb_mindspore import ranks


class Communication:
    """Groups by their names, of a process with the number 1."""

    GlobalComm = SimpleNamespace(WORLD_COMM_GROUP="world")

    def __init__(self, **groups: list[int]) -> None:
        self.groups = groups

    def get_rank(self, group: str = "world") -> int:
        if group not in self.groups:
            raise RuntimeError(f"no group {group}")
        return self.groups[group].index(1)

    def get_group_size(self, group: str) -> int:
        return len(self.groups[group])

    def get_world_rank_from_group_rank(self, group: str, number: int) -> int:
        return self.groups[group][number]


@pytest.fixture
def communication(monkeypatch: pytest.MonkeyPatch) -> Communication:
    found = Communication(world=[0, 1, 2], mine=[0, 1])
    monkeypatch.setattr(ranks, "_communication", lambda: found)
    monkeypatch.setattr(ranks, "_known", {})
    return found


def told(group: str) -> Any:
    found = ranks.ranks_of(group)
    assert found is not None
    return found


def test_group_is_the_same_object_each_time(communication: Communication) -> None:
    assert told("mine") is told("mine")
    assert told("mine") is not told("world")
    assert (told("mine").all, told("mine").own) == ((0, 1), 1)
    assert told("world").all == (0, 1, 2)


def test_group_of_other_ranks_by_a_known_name(communication: Communication) -> None:
    before = told("mine")
    communication.groups["mine"] = [1, 2]
    assert told("mine") is not before
    assert (told("mine").all, told("mine").own) == ((1, 2), 1)
    assert told("mine").group is not before.group


def test_group_that_was_destroyed(communication: Communication) -> None:
    told("mine")
    del communication.groups["mine"]
    with pytest.raises(RankError, match="is not in the group 'mine'"):
        ranks.ranks_of("mine")
