"""initial_latents on the frameworks' own pipelines: what their loops start with."""

from __future__ import annotations

import starts

NAME = "mindspore"


@starts.parametrized
def test_the_loop_starts_with_them(title: str, scheduler: str) -> None:
    starts.check_start(NAME, title, scheduler)


@starts.refused
def test_refused(title: str, why: str) -> None:
    starts.check_refused(NAME, title, why)
