"""Checks a built site: nothing in it is loaded from another host, and every local link leads
somewhere.

    python -m docs_site.check build/site
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

#: What a browser loads by itself.
_LOADED = {
    *(("script", "src"), ("img", "src"), ("img", "srcset"), ("iframe", "src"), ("source", "src")),
    *(("video", "src"), ("audio", "src"), ("object", "data"), ("embed", "src")),
}
_RELATIONS = {
    *("stylesheet", "preconnect", "dns-prefetch", "preload", "icon", "prefetch", "modulepreload"),
}
_IN_STYLE = re.compile(r"url\(\s*['\"]?(?:https?:)?//[^)]*|@import[^;]*//[^;]*")
_ELSEWHERE = re.compile(r"(https?:)?//")


class Page(HTMLParser):
    """Reads what a page loads, what it links to, and what links to it may end in."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value}
        self.ids |= {values[name] for name in ("id", "name") if name in values}
        self.loads += [value for name, value in values.items() if (tag, name) in _LOADED]
        if tag == "link" and "href" in values and _RELATIONS & {*values.get("rel", "").split()}:
            self.loads.append(values["href"])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])


def faults(site: Path) -> Iterator[str]:
    """Yield what is wrong with the site, a line for each."""
    site = site.resolve()
    texts = {file: file.read_text("utf-8") for file in sorted(site.rglob("*.html"))}
    pages = {file: Page(text) for file, text in texts.items()}
    styles = {file: file.read_text("utf-8") for file in site.rglob("*.css")}
    for file, text in {**texts, **styles}.items():
        for found in _IN_STYLE.findall(text):
            yield f"{file.relative_to(site)}: loads {found[:80]}"
    for file, page in pages.items():
        if file.name == "404.html":
            continue  # its links begin at the root of wherever the site is put
        here = file.relative_to(site)
        for load in page.loads:
            if _ELSEWHERE.match(load):
                yield f"{here}: loads {load}"
            elif not load.startswith("data:") and not _target(site, file, load)[0].exists():
                yield f"{here}: loads {load}, which is not there"
        for link in page.links:
            if urlsplit(link).scheme or link.startswith("//"):
                continue
            to, anchor = _target(site, file, link)
            if not to.exists():
                yield f"{here}: links to {link}, which is not there"
            elif anchor and to in pages and anchor not in pages[to].ids:
                yield f"{here}: links to {link}, but the page has no such anchor"


def _target(site: Path, file: Path, link: str) -> tuple[Path, str]:
    url = urlsplit(urljoin(f"http://x/{file.relative_to(site).as_posix()}", link))
    path = site / unquote(url.path).lstrip("/")
    return (path / "index.html" if path.is_dir() else path), unquote(url.fragment)


def main(folder: str) -> int:
    found = sorted({*faults(Path(folder))})
    print(*found, sep="\n", end="\n" if found else "")
    print(f"{sum(1 for _ in Path(folder).rglob('*.html'))} pages, {len(found)} faults")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
