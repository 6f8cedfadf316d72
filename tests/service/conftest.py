"""examples/service.py, started as a user starts it.

Started by `nox -s service`. By hand, in an environment that has the extra `service`, httpx and
pytest: pytest tests/service --framework torch
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients import Server

HERE = Path(__file__).parent
FIGURES: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("service")
    group.addoption("--framework", choices=["torch", "mindspore"], default="torch")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The figures of docs/serving.md."""
    for line in FIGURES:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def figures() -> list[str]:
    """What was measured, to be printed in the end."""
    return FIGURES


@pytest.fixture(scope="session")
def servers(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Server]]:
    """Two, started side by side, as a framework takes long to import: the second is to be ended."""
    framework = pytestconfig.getoption("--framework")
    started = []
    for name in ("running", "mortal"):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [sys.executable, str(HERE / "served.py"), "--framework", framework]
        log = tmp_path_factory.getbasetemp() / f"{name}.log"
        # A short run ends in it, also where others keep the machine busy.
        grace = "5" if framework == "torch" else "30"
        started.append(Server([*command, "--port", str(port), "--grace", grace], port, log))
    yield started
    for server in started:
        server.process.kill()
        server.process.wait()


@pytest.fixture(scope="session")
def running(servers: list[Server]) -> Server:
    servers[0].wait_until_it_answers()
    return servers[0]


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    """Nothing is left of what a test has it do."""
    yield running
    running.wait_until_idle()


@pytest.fixture
def mortal(servers: list[Server]) -> Server:
    """To be ended by the one test that asks for it."""
    servers[1].wait_until_it_answers()
    return servers[1]
