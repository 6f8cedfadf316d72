"""The benchmark of what the sources of a step's end cost runs, in small."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarked import BENCHMARKS, run_small


def test_source_cost(tmp_path: Path) -> None:
    figures = run_small("source_cost", tmp_path)["figures"]
    assert {item["name"] for item in figures} == {
        *("callback", "scheduler", "own loop", "loop block")
    }
    plain = [item["median"] for item in figures if item["case"] == "a plain step"]
    assert len(plain) == 4
    assert min(plain) > 0


def test_what_is_bound_is_called_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or what is measured would be a callback that nobody calls."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import source_cost

    steps: list[int] = []
    monkeypatch.setattr(
        source_cost.Nothing, "on_step_end", lambda self, step: steps.append(step.index)
    )
    for name, run in source_cost.contestants().items():
        steps.clear()
        run()
        assert steps == ([] if "plain" in name else list(range(source_cost.STEPS))), name
