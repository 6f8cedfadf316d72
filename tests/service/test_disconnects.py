"""Clients that leave: at every stage, in every way."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from clients import LONG, PATIENCE, Server, Told, events, is_step, order, picture, reset, until
from served import STEPS

Wanted = Callable[[str, dict[str, Any]], bool]
STAGES: dict[str, Wanted] = {
    "before anything is computed": lambda name, data: name == "run",
    "first step": is_step,
    "first preview": lambda name, data: name == "preview",
    "in the middle": lambda name, data: name == "step" and data["step"] == 20,
}


@pytest.mark.parametrize("stage", STAGES)
def test_client_leaves(server: Server, figures: list[str], stage: str) -> None:
    before = server.get("/computed")
    with server.open(order(steps=LONG)) as told:
        seen = until(told, STAGES[stage])
    server.wait_until_idle()
    computed = server.get("/computed") - before
    late = computed - sum(name == "step" for name, _ in seen)
    figures.append(f"client leaves ({stage}): the run ends {late} steps after the last it was told")
    assert computed < LONG / 2
    assert picture(server.run(order())) == server.plain(0)


def test_client_leaves_while_the_picture_is_decoded(server: Server) -> None:
    for _ in range(3):
        with server.open(order()) as told:
            until(told, lambda name, data: name == "step" and data["step"] == STEPS - 1)
        server.wait_until_idle()
    assert picture(server.run(order())) == server.plain(0)


def test_client_leaves_the_queue(server: Server) -> None:
    """Those behind it move up."""
    with ExitStack() as stack:
        server.fill(stack)
        first = stack.enter_context(ExitStack())
        leaves = first.enter_context(server.open(order(steps=LONG)))
        until(leaves, lambda name, data: data == {"position": 1})
        behind = stack.enter_context(server.open(order(steps=LONG)))
        until(behind, lambda name, data: data == {"position": 2})
        first.close()
        until(behind, lambda name, data: data == {"position": 1})


def test_connection_that_breaks(server: Server) -> None:
    """Without a word, in the middle of a run and before it; one that reads nothing, too."""
    read, unread = (server.socket(order(steps=LONG)) for _ in range(2))
    with read.makefile(encoding="utf-8") as file:
        until(events(iter(file)), is_step)
    reset(read)
    reset(unread)
    reset(server.socket(order(steps=LONG)))
    server.wait_until_idle()
    assert picture(server.run(order())) == server.plain(0)


def test_client_that_is_killed(server: Server) -> None:
    with server.client(order(steps=LONG)) as client:
        assert client.stdout is not None
        until(events(iter(client.stdout)), is_step)
        client.send_signal(signal.SIGKILL)
    server.wait_until_idle()
    assert picture(server.run(order())) == server.plain(0)


def test_many_come_and_go(server: Server) -> None:
    """Each stage again and again, two clients at a time; then the pictures are right."""
    for _ in range(3):
        for wanted in STAGES.values():
            with server.open(order(steps=LONG)) as one, server.open(order(steps=LONG)) as other:
                until(one, wanted)
                until(other, STAGES["before anything is computed"])
    server.wait_until_idle()
    for seed in (3, 4):
        assert picture(server.run(order(seed))) == server.plain(seed)


def test_service_is_told_to_end(mortal: Server) -> None:
    """What is under way may finish in its grace; the rest is cancelled, and the process ends."""
    plain = mortal.plain(5)
    with ExitStack() as stack:
        short = stack.enter_context(mortal.open(order(5)))
        told: list[Told] = until(short, is_step)
        count = 9 if mortal.get("/health")["pipelines"] == 2 else 8
        long = [stack.enter_context(mortal.open(order(steps=LONG))) for _ in range(count)]
        for each in long:
            until(each, lambda name, data: name == "run")
        mortal.process.terminate()
        told += short
        assert picture(told) == plain
        assert told[-1] == ("end", {"outcome": "finished"})
        mortal.process.wait(PATIENCE)
        errors = mortal.errors()
        assert mortal.process.returncode in (0, -signal.SIGTERM), errors
        assert "Fatal" not in errors
        assert "never retrieved" not in errors
