"""JupyterLab with a kernel of this environment, and Chromium to look at it.

Started by `nox -s notebook`, which finds a Chromium or installs one. By hand, in an environment
that has the extra `notebook`, a framework, jupyterlab, nbclient, playwright and pytest:

    CHROMIUM=/usr/bin/chromium pytest tests/notebook --framework torch
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from headless import HOST, answers, chromium, free_port
from lab import PATIENCE, Lab, run_cells
from nbformat.v4 import new_code_cell, new_notebook, writes

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
#: The first lines of a notebook on MindSpore, in the place of those in the example.
ON_MINDSPORE = """\
import unicb_mindspore

unicb_mindspore.enable_cpu()
from mindone.diffusers import StableDiffusionPipeline"""
ON_TORCH = "from diffusers import StableDiffusionPipeline"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("notebook")
    group.addoption("--framework", choices=["torch", "mindspore"], default="torch")
    group.addoption("--screenshots", metavar="FOLDER", help="where to keep pictures of the page")


@pytest.fixture(scope="session")
def framework(pytestconfig: pytest.Config) -> str:
    return str(pytestconfig.getoption("--framework"))


@pytest.fixture(scope="session")
def adapted(framework: str) -> Any:
    """Turns the example's code into that for this framework."""

    def adapt(source: str) -> str:
        if framework == "torch":
            return source
        # Its pipelines return a tuple.
        return source.replace(ON_TORCH, ON_MINDSPORE).replace(".images", "[0]")

    return adapt


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Jupyter's own settings, and nobody's from this machine."""
    folder = tmp_path_factory.mktemp("jupyter")
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    with pytest.MonkeyPatch.context() as patch:
        for name in (*names, "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR"):
            (folder / name).mkdir()
            patch.setenv(name, str(folder / name))
        themes = folder / "JUPYTERLAB_SETTINGS_DIR" / "@jupyterlab" / "apputils-extension"
        themes.mkdir(parents=True)
        # As the browser wants it, light or dark.
        (themes / "themes.jupyterlab-settings").write_text('{"adaptive-theme": true}', "utf-8")
        yield


@pytest.fixture(scope="session")
def lab_url(
    settings: None, tmp_path_factory: pytest.TempPathFactory, adapted: Any
) -> Iterator[str]:
    """Where JupyterLab answers, with a notebook of the cells in lab.py."""
    root = tmp_path_factory.mktemp("notebooks")
    cells = [new_code_cell(adapted(source)) for source in run_cells(EXAMPLES)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    (root / "run.ipynb").write_text(writes(new_notebook(cells=cells, metadata=kernel)), "utf-8")
    quiet = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    configured = Path(os.environ["JUPYTER_CONFIG_DIR"], "labconfig")
    configured.mkdir()
    (configured / "page_config.json").write_text(json.dumps(quiet), "utf-8")
    port = free_port()
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}", f"--ip={HOST}"]
    options = ["--IdentityProvider.token=", "--ServerApp.port_retries=0", "--allow-root"]
    options += [f"--ServerApp.root_dir={root}", "--LabApp.extension_manager=readonly"]
    with open(root / "server.log", "wb") as log:
        server = subprocess.Popen([*command, *options], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + PATIENCE / 1000
        while not answers(port):
            said = (root / "server.log").read_text("utf-8")
            assert server.poll() is None, f"JupyterLab has ended: {said}"
            assert time.monotonic() < deadline, f"JupyterLab does not answer: {said}"
            time.sleep(0.1)
        yield f"http://{HOST}:{port}"
    finally:
        server.terminate()
        server.wait(60)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def lab(lab_url: str, browser: Any) -> Iterator[Lab]:
    """The notebook, opened and ready; its first cell has been run."""
    context = browser.new_context(viewport={"width": 900, "height": 800})
    page = Lab(context.new_page(), f"{lab_url}/doc/tree/run.ipynb")
    page.run("LOAD")
    page.wait_until_done("LOAD")
    yield page
    context.close()


@pytest.fixture
def screenshots(pytestconfig: pytest.Config) -> Path | None:
    path = pytestconfig.getoption("--screenshots")
    if path is None:
        return None
    Path(path).mkdir(parents=True, exist_ok=True)
    return Path(path)
