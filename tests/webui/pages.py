"""The page as who looks at it sees it, and the buttons under their hands."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image
from playwright.sync_api import expect

PATIENCE = 180_000.0  # milliseconds; reached only where something hangs

#: The picture that an element shows, once the browser has it all.
_SHOWN = """id => {
    const image = document.querySelector(`#${id} img`);
    return image && image.complete && image.naturalWidth ? image.src : null;
}"""
_SHOWS_ANOTHER = f"([id, before]) => {{ const now = ({_SHOWN})(id); return now && now != before; }}"


class WebPage:
    """One visitor's page.

    Attributes:
        tab: playwright's page.
    """

    def __init__(self, tab: Any, url: str) -> None:
        self.tab = tab
        tab.set_default_timeout(PATIENCE)
        tab.goto(url)
        self._button("Start").wait_for()

    def start(self, prompt: str, *, steps: int, seed: int = 0) -> None:
        entries = {"Prompt": prompt, "number input for Steps": str(steps), "Seed": str(seed)}
        # Some releases of Gradio set the fields once more when the page has just been opened.
        for _ in range(100):
            for label, text in entries.items():
                self.tab.get_by_label(label).fill(text)
                self.tab.get_by_label(label).press("Tab")
            self.tab.evaluate("() => new Promise(done => requestIdleCallback(done))")
            if self._hold(entries):
                break
        assert self._hold(entries), "the fields do not keep what is typed"
        self._button("Start").click()

    def stop(self) -> None:
        self._button("Stop").click()

    def discard(self) -> None:
        self._button("Discard").click()

    def wait_until_running(self) -> None:
        self._wait_for_button("Stop")

    def wait_until_idle(self) -> None:
        self._wait_for_button("Start")

    def wait_for_text(self, text: str) -> None:
        self.tab.get_by_text(text).first.wait_for()

    @property
    def is_running(self) -> bool:
        return bool(self._button("Stop").is_enabled())

    @property
    def status(self) -> str:
        """What stands below the progress bar."""
        return str(self.tab.locator("#bar").inner_text()).strip()

    def bar(self) -> tuple[int, int]:
        """Value and end of the progress bar."""
        value, end = self.tab.locator("#bar progress").evaluate("bar => [bar.value, bar.max]")
        return int(value), int(end)

    def wait_for_step_after(self, step: int) -> int:
        """Wait until more steps than ``step`` are done, and return how many."""
        after = "step => document.querySelector('#bar progress').value > step"
        self.tab.wait_for_function(after, arg=step)
        return self.bar()[0]

    def previews(self, count: int) -> list[Image.Image]:
        """The next previews of the run that differ, as the browser shows them one after another."""
        self.wait_until_running()  # till then, those of the run before may be there
        seen: list[Image.Image] = []
        source = None
        while len(seen) < count:
            self.tab.wait_for_function(_SHOWS_ANOTHER, arg=["preview", source])
            source = self.tab.evaluate(_SHOWN, "preview")
            if source is None:
                continue
            image = self._fetch(source)
            if all(image.tobytes() != other.tobytes() for other in seen):
                seen.append(image)
        return seen

    def picture(self) -> Image.Image:
        """The finished picture; waits for it."""
        self.tab.wait_for_function(_SHOWN, arg="picture")
        return self._fetch(self.tab.evaluate(_SHOWN, "picture"))

    def shows_nothing(self) -> bool:
        """Whether there is neither a preview nor a picture."""
        return self.tab.locator("#preview img, #picture img").count() == 0

    def shows_picture(self) -> bool:
        return bool(self.tab.locator("#picture img").count() > 0)

    def close(self) -> None:
        self.tab.close()

    def _button(self, name: str) -> Any:
        return self.tab.get_by_role("button", name=name, exact=True)

    def _hold(self, entries: dict[str, str]) -> bool:
        """Whether the fields have these texts, and the slider, which follows its number, too."""
        texts = {label: self.tab.get_by_label(label).input_value() for label in entries}
        slider = self.tab.get_by_label("range slider for Steps").input_value()
        return texts == entries and slider == texts["number input for Steps"]

    def _wait_for_button(self, name: str) -> None:
        expect(self._button(name)).to_be_enabled(timeout=PATIENCE)

    def _fetch(self, source: str) -> Image.Image:
        answer = self.tab.request.get(source)
        assert answer.ok, f"{source}: {answer.status}"
        return Image.open(io.BytesIO(answer.body())).convert("RGB")
