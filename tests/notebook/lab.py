"""A notebook in JupyterLab as who works in it sees it, and what is clicked there."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import expect

PATIENCE = 180_000.0  # milliseconds; reached only where something hangs

_BEGUN = re.compile(r"\[(\*|\d+)\]:?")
_NUMBERED = re.compile(r"\[\d+\]")
_LOAD = """
import json, threading, time
from diffusers import StableDiffusionPipeline
from unicb import CFGCutoff, Preview, bind, run_async, stream
from unicb.sinks import Notebook

pipe = StableDiffusionPipeline.from_pretrained({checkpoint!r})
config = pipe.scheduler.config
pipe.scheduler = type(pipe.scheduler).from_config(config, timestep_spacing="trailing")
PROMPT = "a red star on a blue background"

def slowly(pipeline, index, timestep, tensors):
    time.sleep(0.03)  # the page needs a core, too

def threads():
    kept = ("asyncio_", "ThreadPoolExecutor")  # of the event loop's own pool
    return sorted(t.name for t in threading.enumerate() if not t.name.startswith(kept))

def told(callbacks, output=None):
    picture = None if output is None else output[0][0]
    seen = {{"state": callbacks.state, "step": callbacks.step, "threads": threads() == before}}
    seen["size"] = None if picture is None else list(picture.size)
    seen["hooks"] = type(pipe).__name__ + type(pipe.unet).__name__
    return json.dumps(seen)
before = threads()
"""
_BLOCKING = """
callbacks = bind(pipe, slowly, Preview(Notebook(stop=True)))
output = callbacks(PROMPT, num_inference_steps=1000)
print("TOLD", told(callbacks, output))
"""
_DISCARDED = """
callbacks = bind(pipe, slowly, Preview(Notebook(stop=True)))
try:
    callbacks(PROMPT, num_inference_steps=1000)
finally:
    print("TOLD", told(callbacks))
"""
_AWAITED = """
callbacks = bind(pipe, slowly, Preview(Notebook(stop=True)))
output = await run_async(pipe, PROMPT, callbacks, num_inference_steps=1000)
print("TOLD", told(callbacks, output))
"""
_BATCH = """
callbacks = bind(pipe, slowly, Preview(Notebook(stop=True)))
prompts = [PROMPT, "a green ring", "a white cross", "a blue square"]
output = callbacks(prompts, num_inference_steps=1000)
print("TOLD", told(callbacks, output))
"""
CELLS = {
    "LOAD": _LOAD,
    "STOP": _BLOCKING,
    "DISCARD": _DISCARDED,
    "INTERRUPT": _BLOCKING,
    "AWAIT": _AWAITED,
    "SEVERAL": _BATCH,
}


#: Whether a cell shows that so many steps are done.
_STEPS_DONE = """([index, count]) => {
    const cell = document.querySelectorAll('.jp-CodeCell')[index];
    const found = /step (\\d+)\\/\\d+/.exec(cell.innerText);
    return found && Number(found[1]) >= count;
}"""

#: Colours of the words below an image, and of the first thing around them that has one.
# Asked of the cell, which stays: the pictures in it are replaced all the time.
_COLOURS = """cell => {
    const image = cell.querySelector('.jp-OutputArea img');
    const words = image.parentElement.parentElement.nextElementSibling;
    let around = words;
    while (getComputedStyle(around).backgroundColor == 'rgba(0, 0, 0, 0)') {
        around = around.parentElement;
    }
    return [getComputedStyle(words).color, getComputedStyle(around).backgroundColor];
}"""

_BOXES = """cell => [...cell.querySelectorAll('.jp-OutputArea img')].map(image => {
    const box = image.getBoundingClientRect();
    return {x: box.x, y: box.y, width: box.width, height: box.height};
})"""


def _numbers(colour: str) -> tuple[int, ...]:
    return tuple(int(x) for x in re.findall(r"\d+", colour)[:3])


def run_cells(examples: Path) -> list[str]:
    """The notebook's cells, each with its name in the first line."""
    checkpoint = str(examples / "shapes" / "checkpoint")
    made = {**CELLS, "LOAD": CELLS["LOAD"].format(checkpoint=checkpoint)}
    return [f"# {name}\n{source.strip()}" for name, source in made.items()]


class Lab:
    """One notebook.

    Attributes:
        tab: playwright's page.
    """

    def __init__(self, tab: Any, url: str) -> None:
        self.tab = tab
        tab.set_default_timeout(PATIENCE)
        tab.goto(url)
        tab.locator(".jp-Notebook .jp-Cell").first.wait_for()
        expect(tab.locator(".jp-Notebook-ExecutionIndicator")).to_have_attribute(
            "data-status", "idle", timeout=PATIENCE
        )

    def cell(self, name: str) -> Any:
        return self.tab.locator(".jp-CodeCell").nth(list(CELLS).index(name))

    def run(self, name: str) -> None:
        """Run a cell, as Shift and Enter do."""
        before = self._prompt(name).inner_text()
        # A page that has just been opened may hear the keys, and not yet reach its kernel.
        for _ in range(60):
            self.cell(name).locator(".cm-content").click()
            self.tab.keyboard.press("Shift+Enter")
            for _ in range(30):
                now = self._prompt(name).inner_text()
                if now != before and _BEGUN.fullmatch(now.strip()):
                    return
                self.tab.wait_for_timeout(100)
        raise AssertionError(f"the cell {name} does not begin")

    def wait_until_done(self, name: str) -> None:
        expect(self._prompt(name)).to_have_text(_NUMBERED, timeout=PATIENCE)

    def is_running(self, name: str) -> bool:
        return "*" in str(self._prompt(name).inner_text())

    def _prompt(self, name: str) -> Any:
        return self.cell(name).locator(".jp-InputPrompt")

    def wait_for_steps(self, name: str, count: int) -> None:
        """Wait until a picture is shown, and so many steps are done."""
        self.cell(name).locator(".jp-OutputArea img").first.wait_for()
        self.tab.wait_for_function(_STEPS_DONE, arg=[list(CELLS).index(name), count])

    def buttons(self, name: str) -> list[str]:
        found = self.cell(name).locator(".jp-Cell-outputArea").get_by_role("button")
        return [text.strip() for text in found.all_inner_texts()]

    def click(self, name: str, button: str) -> None:
        self.cell(name).get_by_role("button", name=button).click()

    def interrupt_kernel(self) -> None:
        """Click on ■ in the toolbar."""
        self.tab.get_by_role("button", name="Interrupt the kernel").click()

    def words(self, name: str) -> str:
        """All that its output says."""
        return str(self.cell(name).locator(".jp-Cell-outputArea").inner_text())

    def pictures(self, name: str) -> int:
        return int(self.cell(name).locator(".jp-OutputArea img").count())

    def displays(self, name: str) -> int:
        """How many outputs show pictures."""
        shown = self.cell(name).locator(".jp-OutputArea-child").filter(has=self.tab.locator("img"))
        return int(shown.count())

    def show(self, name: str, scheme: str = "light") -> Image.Image:
        """A picture of the cell, in light or dark colours."""
        self._set_scheme(scheme)
        self.cell(name).evaluate("cell => cell.scrollIntoView({block: 'center'})")
        # Not the cell's own, which waits for it to change no more.
        taken = self.tab.screenshot(clip=self.cell(name).bounding_box())
        return Image.open(io.BytesIO(taken)).convert("RGB")

    def boxes(self, name: str) -> list[dict[str, float]]:
        """Where the cell's pictures are, and how large, at one moment."""
        found: list[dict[str, float]] = self.cell(name).evaluate(_BOXES)
        return found

    def colours(self, name: str) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        """Of the words below the pictures and what is behind them, in each scheme."""
        found = {}
        for scheme in ("dark", "light"):
            self._set_scheme(scheme)
            self.cell(name).locator(".jp-OutputArea img").first.wait_for()
            text, ground = self.cell(name).evaluate(_COLOURS)
            found[scheme] = _numbers(text), _numbers(ground)
        return found

    def _set_scheme(self, scheme: str) -> None:
        self.tab.emulate_media(color_scheme=scheme)
        light = "true" if scheme == "light" else "false"
        self.tab.locator(f"body[data-jp-theme-light={light}]").wait_for(state="attached")
        self.tab.locator("#jupyterlab-splash").wait_for(state="detached")

    def told(self, name: str) -> dict[str, Any]:
        """What the cell has printed of its run."""
        said = self.words(name).split("TOLD ")[1].splitlines()[0]
        found: dict[str, Any] = json.loads(said)
        return found
