"""Looks at the pages of a built site in headless Chromium, on a screen and on a telephone, in light
and in dark: at all of one language, and at the translated ones of the others. Faults are: what the
console calls an error, a request to another host, an answer that is none, a page wider than its
window, and a diagram that is not drawn.

    CHROMIUM=/usr/bin/chromium python -m docs_site.look build/site [--pictures FOLDER] [PAGE ...]
"""

from __future__ import annotations

import argparse
import functools
import http.server
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser, Route, TimeoutError, sync_playwright

SIZES = {"screen": (1280, 900), "telephone": (390, 844)}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
#: Where the site is put for this: below a path, as on most hosts.
BELOW = "unicb/latest"
#: Pages that differ from others of their kind in words only: one of them is looked at.
ALIKE = re.compile(r"(?<=^coverage)/.+|(?<=^project)/.+")
#: What the pages of another language say that are not translated (hooks.py).
UNTRANSLATED = "本页尚无中文版"
_WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
#: What the buttons for light and dark do.
_PALETTE = "s => document.querySelectorAll('[name=__palette]')[+(s === 'dark')].click()"
_UNDRAWN = """[...document.querySelectorAll('pre.mermaid, .mermaid')]
    .filter(e => e.tagName === 'PRE' || e.getBoundingClientRect().height < 20).length"""


class _Handler(http.server.SimpleHTTPRequestHandler):
    def translate_path(self, path: str) -> str:
        return super().translate_path(path.removeprefix(f"/{BELOW}"))

    def log_message(self, *_: Any) -> None:
        """Say nothing: who looks tells what was not found."""


@contextmanager
def served(site: Path) -> Iterator[str]:
    """Serve the site on this machine; gives its address."""
    handler = functools.partial(_Handler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/{BELOW}/"
        finally:
            server.shutdown()


def pages_of(site: Path) -> list[str]:
    """Return paths of the pages, each ending in a slash; of those that are alike, the first."""
    paths: dict[str, str] = {}
    for file in sorted(site.rglob("index.html")):
        path = file.parent.relative_to(site).as_posix()
        if path.startswith("zh/") and UNTRANSLATED in file.read_text("utf-8"):
            continue
        paths.setdefault(ALIKE.sub("", path), "" if path == "." else f"{path}/")
    return list(paths.values())


class Look:
    """Visits pages in one window, and keeps what was wrong."""

    def __init__(self, browser: Browser, base: str) -> None:
        self.base, self.faults, self.way = base, list[str](), ""
        self._index: dict[str, Any] | None = None
        # Faults are in what pages come to, not in how they move there.
        self.page = browser.new_page(reduced_motion="reduce")
        self.page.route("**/search_index.json", self._answer_search)
        self.page.on("request", lambda request: self._requested(request.url))
        self.page.on("console", lambda m: m.type == "error" and self._note(m.text))
        self.page.on("pageerror", lambda error: self._note(str(error)))
        self.page.on("response", self._answered)

    def visit(self, path: str, pictures: Path | None = None) -> None:
        self.way = "loading"
        self.page.set_viewport_size({"width": 1280, "height": 900})
        self.page.goto(self.base + path, wait_until="load")
        if self.page.locator(".mermaid").count():
            self._wait(f"!({_UNDRAWN})", "a diagram is not drawn")
        for (size, (width, height)), scheme in product(SIZES.items(), SCHEMES):
            self.way = f"{size}, {scheme}"
            self.page.set_viewport_size({"width": width, "height": height})
            self.page.evaluate(_PALETTE, scheme)
            self._wait(f"{_WIDER} <= 0", "the page is wider than the window")
            if pictures is not None:
                name = path.strip("/").replace("/", "-") or "index"
                file = pictures / f"{name}-{size}-{scheme}.png"
                self.page.screenshot(path=file)

    def _wait(self, condition: str, fault: str) -> None:
        """Wait for what may take a moment, such as a drawer that moves; else note a fault."""
        try:
            self.page.wait_for_function(condition, timeout=5000)
        except TimeoutError:
            self._note(fault)

    def _answer_search(self, route: Route) -> None:
        """Hand the first page the whole site's words for its search, and every other page the words
        of one page: a browser takes a third of its time here to make an index of them all."""
        if self._index is None:
            response = route.fetch()
            self._index = response.json()
            route.fulfill(response=response)
            return
        route.fulfill(json={**self._index, "docs": self._index["docs"][:1]})

    def _requested(self, url: str) -> None:
        if not url.startswith((self.base, "data:", "blob:")):
            self._note(f"asks another place for {url}")

    def _answered(self, response: Any) -> None:
        if response.status >= 400:
            self._note(f"{response.url}: {response.status}")

    def _note(self, fault: str) -> None:
        path = self.page.url.removeprefix(self.base) or "the first page"
        self.faults.append(f"{path} ({self.way}): {fault}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("site", type=Path)
    parser.add_argument("pages", nargs="*", help="paths of pages; all, if none is given")
    parser.add_argument(
        "--pictures", type=Path, help="where to keep pictures of what is seen first of each"
    )
    options = parser.parse_intermixed_args()
    paths = options.pages or pages_of(options.site)
    with served(options.site) as base, sync_playwright() as playwright:
        chromium = playwright.chromium
        browser = chromium.launch(executable_path=os.environ["CHROMIUM"], args=["--no-sandbox"])
        look = Look(browser, base)
        for path in paths:
            look.visit(path, options.pictures)
        browser.close()
    print(*look.faults, sep="\n", end="\n" if look.faults else "")
    ways = len(SIZES) * len(SCHEMES)
    print(f"{len(paths)} pages looked at in {ways} ways, {len(look.faults)} faults")
    return bool(look.faults)


if __name__ == "__main__":
    sys.exit(main())
