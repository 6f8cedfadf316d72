"""examples/notebook.ipynb, run in a kernel: what it shows is what the committed one shows."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NOTEBOOK = EXAMPLES / "notebook.ipynb"
PATIENCE = 180


def kinds(cell: Any) -> list[Any]:
    """What is alike in the outputs of two runs: their kinds, and the words of displays, as far as
    those are not times."""
    found: list[Any] = []
    for output in cell.outputs:
        data = output.get("data", {})
        words = str(data.get("text/plain", "")).partition(",")[0]
        is_display = output.output_type == "display_data"
        kind = (output.output_type, output.get("name"), sorted(data), words if is_display else "")
        if kind not in found[-1:]:
            found.append(kind)
    return found


class Kernel:
    """The notebook's kernel, and what else is run in it."""

    def __init__(self, client: NotebookClient) -> None:
        self._client = client

    def run(self, source: str, meanwhile: Callable[[Any], None] = lambda cell: None) -> Any:
        """Run a cell; ``meanwhile`` is called in another thread, with the cell, once it shows
        something. Returns the cell."""
        cell = new_code_cell(source)
        self._client.nb.cells.append(cell)

        def wait() -> None:
            deadline = time.monotonic() + PATIENCE
            while not cell.outputs and time.monotonic() < deadline:
                time.sleep(0.01)
            meanwhile(cell)

        waiting = threading.Thread(target=wait)
        waiting.start()
        try:
            self._client.execute_cell(cell, len(self._client.nb.cells) - 1)
        except CellExecutionError:
            pass
        finally:
            waiting.join()
        return cell

    def interrupt(self, cell: Any = None) -> None:
        """Press ■."""
        asyncio.run(self._client.km.interrupt_kernel())


@pytest.fixture(scope="module")
def executed(settings: None, adapted: Any) -> Iterator[tuple[Any, Kernel]]:
    """The notebook, executed anew, and its kernel."""
    made = nbformat.read(NOTEBOOK, as_version=4)
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.source, cell.outputs = adapted(cell.source), []
    where = {"metadata": {"path": str(EXAMPLES)}}
    client = NotebookClient(made, timeout=PATIENCE, resources=where)
    with client.setup_kernel():
        for index, cell in enumerate(list(made.cells)):
            client.execute_cell(cell, index)
        yield made, Kernel(client)


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_it_shows_what_the_committed_one_shows(executed: tuple[Any, Kernel]) -> None:
    again, _ = executed
    committed = nbformat.read(NOTEBOOK, as_version=4)
    for there, here in zip(code(committed), code(again), strict=False):
        assert kinds(here) == kinds(there), there.source


def test_the_committed_one_is_small_whole_and_nobodys() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    committed = nbformat.reads(text, as_version=4)
    nbformat.validate(committed)
    assert len(text) < 300_000
    assert not re.search(r'["\s(](/tmp|/home|/root|/Users|[A-Z]:\\\\)', text)
    assert [cell.execution_count for cell in code(committed)] == [
        *range(1, len(code(committed)) + 1)
    ]
    assert "widgets" not in committed.metadata
    assert "application/vnd.jupyter.widget-view+json" not in text


def said(cell: Any) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


RUN = "output = callbacks('a red star', num_inference_steps=300)\nprint(callbacks.state)"


def test_an_interrupt_gives_the_picture_so_far(executed: tuple[Any, Kernel]) -> None:
    _, kernel = executed
    cell = kernel.run(f"callbacks = bind(pipe, Preview())\n{RUN}", kernel.interrupt)
    assert said(cell).strip() == "interrupted"
    assert any("stopped after step" in str(output.get("data")) for output in cell.outputs)


def test_twice_in_a_cell_raises(executed: tuple[Any, Kernel]) -> None:
    """In a loop over runs, the second ends the loop."""
    _, kernel = executed

    def twice(cell: Any) -> None:
        kernel.interrupt()
        deadline = time.monotonic() + PATIENCE
        while len(cell.outputs) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)  # the second run's display
        kernel.interrupt()

    source = "for _ in range(100):\n    callbacks('a red star', num_inference_steps=300)"
    cell = kernel.run(f"callbacks = bind(pipe, Preview())\n{source}", twice)
    [error] = [output for output in cell.outputs if output.output_type == "error"]
    assert error.ename == "KeyboardInterrupt"
    assert said(kernel.run("print(callbacks.state)")).strip() == "failed"


def test_an_awaited_run_is_interrupted(executed: tuple[Any, Kernel]) -> None:
    _, kernel = executed
    awaited = RUN.replace("callbacks(", "await run_async(pipe, ", 1)
    awaited = awaited.replace("star',", "star', callbacks,")
    cell = kernel.run(f"callbacks = bind(pipe, Preview())\n{awaited}", kernel.interrupt)
    assert said(cell).strip() == "interrupted"


def test_an_error_has_its_traceback(executed: tuple[Any, Kernel]) -> None:
    _, kernel = executed
    source = (
        "def broken(pipeline, index, timestep, tensors):\n    raise ZeroDivisionError('mine')\n"
        "bind(pipe, broken, Preview(Notebook(stop=True)))('a red star')"
    )
    [error] = kernel.run(source).outputs
    assert (error.ename, error.evalue) == ("ZeroDivisionError", "mine")
    assert any("broken" in line for line in error.traceback)


def test_nothing_is_left(executed: tuple[Any, Kernel]) -> None:
    _, kernel = executed
    source = (
        "import threading, ipywidgets\n"
        "print([t.name for t in threading.enumerate() if t.name.startswith('unicb')],\n"
        "      [w['model_name'] for w in ipywidgets.Widget.get_manager_state()['state'].values()\n"
        "       if w['model_name'] == 'ButtonModel'],\n"
        "      type(get_ipython().kernel.shell_stream._recv_callback.__self__).__name__)"
    )
    assert said(kernel.run(source)).strip() == "[] [] IPythonKernel"
