"""examples/webui.py, started as a user starts it, and Chromium to look at it.

Started by `nox -s webui`, which finds a Chromium or installs one. By hand, in an environment that
has the extra `webui`, playwright and pytest:

    CHROMIUM=/usr/bin/chromium pytest tests/webui --framework torch
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from headless import HOST, answers, chromium, free_port
from pages import PATIENCE, WebPage

from unicb import Interrupt, bind

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
WINDOW = {"width": 900, "height": 720}

Visit = Callable[[str], WebPage]
Draw = Callable[..., Any]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("webui")
    group.addoption("--framework", choices=["torch", "mindspore"], default="torch")
    group.addoption("--screenshot", metavar="PNG", help="where to keep a picture of the page")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """MindSpore's runs take turns: there are no two at once to be tested."""
    at_once = collection_path.name == "test_at_once.py"
    return True if at_once and config.getoption("--framework") == "mindspore" else None


@pytest.fixture(scope="session")
def framework(pytestconfig: pytest.Config) -> str:
    return str(pytestconfig.getoption("--framework"))


@pytest.fixture(scope="session")
def webui() -> Any:
    """The example, as a module."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        import webui

        return webui
    finally:
        sys.path.remove(str(EXAMPLES))


@pytest.fixture(scope="session")
def url(webui: Any, framework: str) -> str:
    """Where the example answers, started by its command line. It runs until the process ends."""
    port = free_port()
    arguments = ["--framework", framework, "--host", HOST, "--port", str(port)]
    main = threading.Thread(target=webui.main, args=[arguments], daemon=True)
    main.start()
    deadline = time.monotonic() + PATIENCE / 1000
    while not answers(port):
        assert main.is_alive(), "examples/webui.py has ended: see above"
        assert time.monotonic() < deadline, "examples/webui.py does not answer"
        time.sleep(0.1)
    return f"http://{HOST}:{port}"


@pytest.fixture(scope="session")
def pipe(webui: Any, framework: str, url: str) -> Any:
    """A pipeline of the tests' own; made after the example's, not beside it."""
    return webui.load(framework)


@pytest.fixture(scope="session")
def turns_url(webui: Any, framework: str, url: str, pipe: Any) -> Iterator[str]:
    """Where an example answers that runs one generation at a time, as all do on MindSpore."""
    if framework == "mindspore":
        yield url
        return
    port = free_port()
    page = webui.build(webui.sibling(pipe), at_once=False)
    page.launch(server_name=HOST, server_port=port, prevent_thread_lock=True, quiet=True)
    yield f"http://{HOST}:{port}"
    page.close()


@pytest.fixture
def draw(webui: Any, pipe: Any) -> Draw:
    """What the pipeline draws when it is told to stop after some steps, without any page."""

    def draw(prompt: str, *, steps: int, after: int, seed: int = 0) -> Any:
        return pipe(
            prompt,
            num_inference_steps=steps,
            guidance_scale=webui.GUIDANCE_SCALE,
            latents=webui.seeded_latents(pipe, seed),
            return_dict=False,
            **bind(pipe, Interrupt(after - 1)),
        )[0][0]

    return draw


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    """Opens a page, each in a browser session of its own; no script of it may fail."""
    contexts, errors = [], []

    def visit(url: str) -> WebPage:
        context = browser.new_context(viewport=WINDOW)
        contexts.append(context)
        tab = context.new_page()
        tab.on("pageerror", lambda error: errors.append(error))
        return WebPage(tab, url)

    yield visit
    for context in contexts:
        context.close()
    assert not errors, errors
    wait_until_no_run()


@pytest.fixture
def screenshot(pytestconfig: pytest.Config) -> Path | None:
    path = pytestconfig.getoption("--screenshot")
    return None if path is None else Path(path)


def wait_until_no_run() -> None:
    """No generation goes on that nobody looks at."""
    deadline = time.monotonic() + PATIENCE / 1000
    while running := [t for t in threading.enumerate() if t.name == "unicb-stream"]:
        assert time.monotonic() < deadline, f"still running: {running}"
        time.sleep(0.05)
