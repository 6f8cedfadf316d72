"""Runs that end by themselves, and what is refused."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from clients import LONG, Server, events, is_step, order, picture, steps_of, until
from served import BROKEN, SEEDS, STEPS

#: How many may wait, unless the command line says otherwise.
WAITING = 8


def test_ten_at_once(server: Server, figures: list[str]) -> None:
    """As many as are let in where there is one pipeline alone: nine."""
    pipelines = server.get("/health")["pipelines"]
    seeds = SEEDS[: pipelines + WAITING]
    with ThreadPoolExecutor(len(seeds)) as pool:
        told = list(pool.map(server.run, map(order, seeds)))
    right = sum(picture(each) == server.plain(seed) for seed, each in enumerate(told))
    figures.append(f"{len(seeds)} clients at once: {right} of {len(seeds)} pictures have the bits")
    assert right == len(seeds)
    assert len({picture(each) for each in told}) == len(seeds)
    waited = 0
    for each in told:
        names = [name for name, _ in each]
        assert names[0] == "run"
        assert names[-2:] == ["result", "end"]
        assert steps_of(each) == list(range(STEPS))
        assert "preview" in names
        assert each[-1][1] == {"outcome": "finished"}
        places = [data["position"] for name, data in each if name == "queue"]
        assert places == sorted(places, reverse=True)
        assert places[-1] == 1
        waited += places[0] > 1
    assert waited >= len(seeds) - 2 * pipelines


def test_all_is_said_of_a_run(server: Server) -> None:
    told = server.run(order())
    kinds = [name for name, _ in told if name != "preview"]
    assert kinds == ["run", "queue", *["step"] * STEPS, "result", "end"]
    before = server.counted("unicb_steps_total")
    states = [data for name, data in server.run(order()) if name == "step"]
    assert {state["num_timesteps"] for state in states} == {STEPS}
    assert states[-1]["remaining"] == 0
    assert server.counted("unicb_steps_total") == before + STEPS


def test_a_full_queue_is_429_and_a_busy_pipeline_409(server: Server) -> None:
    with ExitStack() as stack:
        pipelines = server.fill(stack)
        refused = server.post(order(wait=False))
        assert (refused.status_code, refused.json()["detail"]) == (409, "every pipeline is busy")
        for place in range(WAITING):
            told = stack.enter_context(server.open(order(steps=LONG)))
            until(told, lambda name, data, at=place + 1: data == {"position": at})
        assert server.get("/health") == {
            "pipelines": pipelines,
            "running": pipelines,
            "waiting": WAITING,
        }
        refused = server.post(order())
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
        assert server.counted("unicb_waiting") == WAITING
        assert server.counted("unicb_running") == pipelines
    server.wait_until_idle()
    assert picture(server.run(order(wait=False))) == server.plain(0)


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        (order(steps=0), 422),
        (order(steps=1001), 422),
        (order(prompt=""), 422),
        (order(prompt="x" * 1001), 422),
        (order(guidance_scale=1e9), 422),
        (order(seed=-1), 422),
        (order(callbacks=["x"]), 422),
        (order(prompt="x" * 20_000), 413),
    ],
    ids=lambda value: "" if isinstance(value, dict) else str(value),
)
def test_orders_are_bounded(server: Server, wrong: dict[str, Any], status: int) -> None:
    assert server.post(wrong).status_code == status


def test_a_body_without_a_length_is_bounded(server: Server) -> None:
    endless = (b"x" * 4096 for _ in range(8))
    json = {"content-type": "application/json"}
    assert httpx.post(server.url + "/runs", content=endless, headers=json).status_code == 413


def test_interrupt_and_cancel(server: Server) -> None:
    pipelines = server.get("/health")["pipelines"]
    with ExitStack() as stack:
        runs = [stack.enter_context(server.open(order(steps=LONG))) for _ in range(pipelines + 1)]
        ids = [until(told, lambda name, data: name == "run")[0][1]["id"] for told in runs]
        until(runs[0], is_step)
        *_, waiting = ids
        until(runs[-1], lambda name, data: name == "queue")
        act = httpx.post(f"{server.url}/runs/{waiting}/interrupt")
        assert act.status_code == 409
        assert httpx.delete(f"{server.url}/runs/{waiting}").status_code == 202
        assert list(runs[-1])[-1] == ("end", {"outcome": "cancelled"})
        assert httpx.post(f"{server.url}/runs/{ids[0]}/interrupt").status_code == 202
        rest = list(runs[0])
        assert rest[-1] == ("end", {"outcome": "interrupted"})
        assert picture(rest)
        assert len(steps_of(rest)) < LONG / 2
        for run in (*ids[1:-1], ids[-1]):
            httpx.delete(f"{server.url}/runs/{run}")
        for told in runs[1:-1]:
            rest = list(told)
            assert rest[-1] == ("end", {"outcome": "cancelled"})
            assert "result" not in dict(rest)
    for gone in (ids[0], "nobody"):
        assert httpx.delete(f"{server.url}/runs/{gone}").status_code == 404
        assert httpx.post(f"{server.url}/runs/{gone}/interrupt").status_code == 404


def test_a_run_that_fails_costs_no_other(server: Server) -> None:
    told = server.run(order(BROKEN))
    assert told[-1] == ("end", {"outcome": "failed"})
    assert "broken on purpose" not in str(told)  # which is for the log
    assert picture(server.run(order(1))) == server.plain(1)


def test_a_slow_reader_misses_previews_at_most(server: Server) -> None:
    """It reads nothing until everybody else has been served."""
    with server.socket(order(2)) as slow:
        server.wait_for(lambda: server.get("/health")["running"] == 1)
        for seed in (0, 1):
            assert picture(server.run(order(seed))) == server.plain(seed)
        server.wait_until_idle()  # its own run has ended, too, and its pipeline is free
        with slow.makefile(encoding="utf-8") as file:
            told = list(events(iter(file)))
    assert steps_of(told) == list(range(STEPS))
    assert picture(told) == server.plain(2)


def test_previews_that_are_not_taken_give_way_to_the_newest() -> None:
    import asyncio

    import service

    from unicb import PreviewFrame

    async def main() -> list[Any]:
        job = service.Job(service.Order(prompt="x"))
        frames = [PreviewFrame(step, 9, 0.0, []) for step in range(4)]
        for event in ("a", *frames[:3], "b"):
            job.tell(event)
        taken = [await job.take() for _ in range(3)]
        job.tell(frames[3])
        assert taken == ["a", frames[2], "b"]
        return [await job.take()]

    assert asyncio.run(main())[0].step == 3
