"""Chromium without a window, for the tests of what is looked at in a browser."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

HOST = "127.0.0.1"


@contextmanager
def chromium() -> Iterator[Any]:
    """Chromium without a window, that finds no other machine than this one."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM")
    if not path:
        pytest.exit("set CHROMIUM to the path of a Chromium, or run the tests by nox", 1)
    arguments = [
        "--disable-dev-shm-usage",
        f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {HOST}",
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        arguments.append("--no-sandbox")  # which Chromium refuses to have as root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


def free_port() -> int:
    with closing(socket.socket()) as taken:
        taken.bind((HOST, 0))
        return int(taken.getsockname()[1])


def answers(port: int) -> bool:
    with closing(socket.socket()) as tried:
        return tried.connect_ex((HOST, port)) == 0
