"""The benchmarks of guidance run, in small: that what they write is whole."""

from __future__ import annotations

from pathlib import Path

from benchmarked import check_cross_framework, check_cut_saving


def test_cut_saving(tmp_path: Path) -> None:
    check_cut_saving(tmp_path, "mindspore", "SD, tiny")


def test_cross_framework(tmp_path: Path) -> None:
    check_cross_framework(tmp_path, "mindspore")
