"""Clients of the service: real HTTP, over real sockets."""

from __future__ import annotations

import base64
import json
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
from served import PROMPT, STEPS

PATIENCE = 600.0  # seconds that only a broken test waits for; a framework takes long to import
LONG = 1000  # steps: far more than a test waits for
NOTHING = {"threads": [], "changed": [], "leases": 0, "runs": 0}
Told = tuple[str, dict[str, Any]]


def order(seed: int = 0, steps: int = STEPS, **more: Any) -> dict[str, Any]:
    return {"prompt": PROMPT, "seed": seed, "num_inference_steps": steps, **more}


def events(lines: Iterator[str]) -> Iterator[Told]:
    """Server-sent events, with their data read."""
    name = ""
    for line in lines:
        field, _, value = line.rstrip("\n").partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


def until(told: Iterator[Told], wanted: Callable[[str, dict[str, Any]], bool]) -> list[Told]:
    """The events up to the first that is wanted."""
    found = []
    for name, data in told:
        found.append((name, data))
        if wanted(name, data):
            return found
    raise AssertionError(f"the stream has ended after {[name for name, _ in found]}")


def is_step(name: str, data: dict[str, Any]) -> bool:
    return name == "step"


def picture(told: list[Told]) -> bytes:
    """The finished picture's PNG."""
    [url] = [data["image"] for name, data in told if name == "result"]
    kind, _, text = url.partition(",")
    assert kind == "data:image/png;base64"
    return base64.b64decode(text)


def steps_of(told: list[Told]) -> list[int]:
    return [data["step"] for name, data in told if name == "step"]


#: A client that is a process: prints what it is told by the address that it is called with.
CLIENT = """
import sys, urllib.request
json = {"Content-Type": "application/json"}
asked = urllib.request.Request(sys.argv[1], sys.argv[2].encode(), json)
for line in urllib.request.urlopen(asked):
    print(line.decode(), end="", flush=True)
"""


class Server:
    """The service in a process of its own."""

    def __init__(self, command: list[str], port: int, log: Path) -> None:
        self.port, self.url = port, f"http://127.0.0.1:{port}"
        self.log = log
        with log.open("w", encoding="utf-8") as file:
            self.process = subprocess.Popen(command, stderr=file)

    def wait_until_it_answers(self) -> None:
        def answers() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(self.errors())
            try:
                return self.get("/health")["running"] == 0
            except httpx.ConnectError:
                return False

        self.wait_for(answers)

    def errors(self) -> str:
        """What it has said of errors, and of its beginning and end."""
        return self.log.read_text("utf-8")

    def get(self, path: str) -> Any:
        return httpx.get(self.url + path, timeout=PATIENCE).json()

    def plain(self, seed: int) -> bytes:
        return httpx.get(f"{self.url}/plain/{seed}").content

    def counted(self, name: str) -> float:
        """A figure of /metrics; 0 where nothing was counted yet."""
        lines = httpx.get(self.url + "/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name + " "))

    def post(self, what: dict[str, Any]) -> httpx.Response:
        return httpx.post(self.url + "/runs", json=what, timeout=PATIENCE)

    @contextmanager
    def open(self, what: dict[str, Any]) -> Iterator[Iterator[Told]]:
        """A run's events. To leave the block is to close the connection."""
        asked = httpx.stream("POST", self.url + "/runs", json=what, timeout=PATIENCE)
        with asked as response:
            assert response.status_code == 200, response.read()
            assert response.headers["content-type"].startswith("text/event-stream")
            told = events(response.iter_lines())  # which has to be kept: it closes the connection
            yield told

    def fill(self, stack: ExitStack) -> int:
        """Have every pipeline run until the stack is closed; returns how many there are."""
        pipelines = self.get("/health")["pipelines"]
        for _ in range(pipelines):
            until(stack.enter_context(self.open(order(steps=LONG))), is_step)
        return int(pipelines)

    def run(self, what: dict[str, Any]) -> list[Told]:
        with self.open(what) as told:
            return list(told)

    def socket(self, what: dict[str, Any]) -> socket.socket:
        """A connection on which a run is asked for, and nothing is read; it holds little."""
        body = json.dumps(what)
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", self.port))
        head = "POST /runs HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: "
        connection.sendall(f"{head}{len(body)}\r\n\r\n{body}".encode())
        return connection

    def client(self, what: dict[str, Any]) -> subprocess.Popen[str]:
        """A run's events, printed by a process."""
        command = [sys.executable, "-c", CLIENT, self.url + "/runs", json.dumps(what)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def wait_for(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def wait_until_idle(self) -> None:
        """And see that nothing is left."""
        health = {"running": 0, "waiting": 0}
        self.wait_for(lambda: self.get("/health").items() >= health.items())
        assert self.get("/left") == NOTHING


def reset(connection: socket.socket) -> None:
    """End a connection without a word of farewell, as a crash or a dead network does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
