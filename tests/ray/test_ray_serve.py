"""Ray Serve with two replicas on this machine, and real HTTP clients.

Started by `nox -s ray`. By hand, in an environment that has the extra `ray`, httpx and pytest:
pytest tests/ray
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PATIENCE = 600.0  # seconds that only a broken test waits for
STEPS, LONG = 12, 500
PROMPT = "a red star on a blue background"
Told = tuple[str, dict[str, Any]]


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


class Server:
    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url, self.noted = f"http://127.0.0.1:{port}/", folder / "steps"
        self.noted.touch()
        script = [sys.executable, str(Path(__file__).with_name("served.py")), str(self.noted)]
        own = {"RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
        # Of the replicas, too, which import the example by its name.
        own["PYTHONPATH"] = str(EXAMPLES)
        self.process = subprocess.Popen([*script, "--port", str(port)], env={**os.environ, **own})

    def computed(self) -> int:
        """How many steps have ended, in both replicas."""
        return self.noted.stat().st_size

    def answers(self) -> bool:
        assert self.process.poll() is None
        try:
            return httpx.post(self.url, json={}, timeout=PATIENCE).status_code == 422
        except httpx.TransportError:
            return False

    @contextmanager
    def open(self, seed: int = 0, steps: int = STEPS) -> Iterator[Iterator[Told]]:
        order = {"prompt": PROMPT, "seed": seed, "num_inference_steps": steps}
        with httpx.stream("POST", self.url, json=order, timeout=PATIENCE) as response:
            assert response.status_code == 200, response.read()
            told = events(response.iter_lines())  # which has to be kept: it closes the connection
            yield told

    def status(self) -> int:
        """That of a run's answer, when it has ended."""
        order = {"prompt": PROMPT, "num_inference_steps": 2}
        return httpx.post(self.url, json=order, timeout=PATIENCE).status_code

    def run(self, seed: int = 0) -> list[Told]:
        with self.open(seed) as told:
            return list(told)


def events(lines: Iterator[str]) -> Iterator[Told]:
    name = ""
    for line in lines:
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


def until(told: Iterator[Told], name: str) -> list[Told]:
    found = []
    for event in told:
        found.append(event)
        if event[0] == name:
            return found
    raise AssertionError(f"the stream has ended after {[name for name, _ in found]}")


def picture(told: list[Told]) -> bytes:
    [url] = [data["image"] for name, data in told if name == "result"]
    return base64.b64decode(url.partition(",")[2])


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("ray"))
    try:
        wait_for(server.answers)
        yield server
    finally:
        server.process.terminate()  # Ray ends its processes then
        server.process.wait(PATIENCE)


@pytest.fixture(scope="session")
def plain() -> Callable[[int], bytes]:
    """The PNG of the pipeline's picture with the same callback, in this process, without Ray."""
    import io

    sys.path.insert(0, str(EXAMPLES))
    from quickstart import CHECKPOINT, pipeline_class, seeded_latents

    from unicb import CFGCutoff, bind

    pipe = pipeline_class("torch").from_pretrained(CHECKPOINT)

    def draw(seed: int) -> bytes:
        how = {"num_inference_steps": STEPS, "latents": seeded_latents(pipe, seed)}
        file = io.BytesIO()
        bind(pipe, CFGCutoff(0.8))(PROMPT, **how).images[0].save(file, "png")
        return file.getvalue()

    return draw


def test_two_replicas_draw_at_once(server: Server, plain: Callable[[int], bytes]) -> None:
    with server.open(steps=LONG) as one, server.open(steps=LONG) as other:
        until(one, "step")
        until(other, "step")  # though the first has not ended
    before = server.computed()
    with ThreadPoolExecutor(6) as pool:  # four of them wait
        told = list(pool.map(server.run, range(6)))
    assert [picture(each) for each in told] == [plain(seed) for seed in range(6)]
    assert len({data["process"] for each in told for name, data in each if name == "run"}) == 2
    for each in told:
        assert [data["step"] for name, data in each if name == "step"] == list(range(STEPS))
        assert "preview" in dict(each)
    assert server.computed() >= before + 6 * STEPS


@pytest.mark.parametrize("stage", ["run", "step", "preview"])
def test_client_leaves(server: Server, plain: Callable[[int], bytes], stage: str) -> None:
    """Both replicas are free again, long before their runs would have ended."""
    before = server.computed()
    with server.open(steps=LONG) as one, server.open(steps=LONG) as other:
        until(one, stage)
        until(other, stage)
    for seed in range(4):
        assert picture(server.run(seed)) == plain(seed)
    assert server.computed() - before < LONG


def test_too_many_are_refused(server: Server) -> None:
    """Eight wait, and the ninth gets Ray's own answer."""
    with ThreadPoolExecutor(9) as pool:
        with server.open(steps=LONG) as one, server.open(steps=LONG) as other:
            until(one, "step")
            until(other, "step")
            asked = [pool.submit(server.status) for _ in range(9)]
            assert next(as_completed(asked)).result() == 503
        assert sorted(each.result() for each in asked) == [*[200] * 8, 503]


def test_what_cannot_be_is_refused(server: Server) -> None:
    for order in ({"prompt": "x", "num_inference_steps": 0}, {"seed": 1}, ["x"]):
        assert httpx.post(server.url, json=order, timeout=PATIENCE).status_code == 422
