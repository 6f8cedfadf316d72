"""What a run holds on mindone's attention, only that run sees."""

from __future__ import annotations

import held


def test_nested() -> None:
    held.check_nested("mindspore")


def test_copies() -> None:
    held.check_copies("mindspore")


def test_classes() -> None:
    held.check_classes("mindspore")


def test_processors() -> None:
    held.check_processors("mindspore")


def test_threads() -> None:
    held.check_threads("mindspore")
