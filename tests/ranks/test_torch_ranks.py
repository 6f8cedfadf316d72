"""Several processes that share a denoiser, on torch: each finds the same, and that is right.

The processes make one case after the other (torch_cases.py); here, each is a test.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from launched import asked_for, names_of, run_ranks, what

SCRIPT = Path(__file__).with_name("torch_cases.py")
ENGINES = ["flux_ulysses", "wan_ulysses", "flux_tensor", "wan_fsdp2"]
OTHERS = ["wan_heun_ulysses", "flux_fsdp2", "no_flag_fsdp2", "flux_alone"]
CASES = [*(f"equal:{engine}" for engine in ENGINES), *names_of(SCRIPT, "case")]
MORE = [
    *(f"equal:{engine}" for engine in OTHERS[:2]),
    *(f"{stops}:{name}" for stops in ("stops", "stops_now") for name in (*ENGINES, *OTHERS)),
    *names_of(SCRIPT, "more"),
]
LAST, FOUR = names_of(SCRIPT, "last"), names_of(SCRIPT, "four")

Said = list[dict[str, Any]]


def launched(
    factory: pytest.TempPathFactory, size: int, names: list[str], name: str
) -> Callable[[str], list[Any]]:
    said = run_ranks("torch_cases", size, factory.mktemp(name), names)
    return lambda case: [what(each, case) for each in said]


@pytest.fixture(scope="module")
def two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return launched(tmp_path_factory, 2, asked_for(request, [*CASES, *MORE]), "two")


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """All of them: each begins where the one before has left the ranks."""
    return run_ranks("torch_cases", 2, tmp_path_factory.mktemp("lost"), LAST)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return launched(tmp_path_factory, 4, FOUR, "four")


def check_same(found: list[Any]) -> None:
    assert all(each == found[0] for each in found), found


@pytest.mark.parametrize("case", CASES)
def test_two_ranks(two: Callable[[str], list[Any]], case: str) -> None:
    check_same(two(case))


@pytest.mark.long
@pytest.mark.parametrize("case", MORE)
def test_two_ranks_at_length(two: Callable[[str], list[Any]], case: str) -> None:
    check_same(two(case))


@pytest.mark.parametrize("case", [name for name in LAST if name != "killed_rank"])
def test_ranks_that_lose_each_other(lost: Said, case: str) -> None:
    check_same([what(each, case) for each in lost])


def test_rank_that_is_killed(lost: Said) -> None:
    assert "one is gone" in what(lost[0], "killed_rank")
    assert "killed_rank" not in lost[1]


@pytest.mark.parametrize("case", FOUR)
def test_four_ranks(four: Callable[[str], list[Any]], case: str) -> None:
    found = four(case)
    check_same(found[:2])
    check_same(found[2:])


def test_results_are_of_this_run(tmp_path: Path) -> None:
    # A case that no rank has made is no success.
    with pytest.raises(AssertionError, match="has said nothing of it"):
        what({}, "it")
    with pytest.raises(AssertionError, match="boom"):
        what({"it": {"case": "it", "error": "boom"}}, "it")


def test_there_are_cases() -> None:
    assert min(len(CASES) - len(ENGINES), len(MORE), len(LAST), len(FOUR)) > 1
