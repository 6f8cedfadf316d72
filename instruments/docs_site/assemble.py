"""Puts the pages of the site together: those of ``docs/``, and what they link to outside of it.

A page of the repository may link to any file of it (``../examples/webui.py``). In the site, such a
file is a page under ``project/``, so that the site is whole without the repository and needs no
network.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from docs_site.checks_page import checks_page

ROOT = Path(__file__).resolve().parents[2]
#: Pages of the repository that have a place of their own in the site.
PLACES = {
    "README.md": "index.md",
    "README.zh.md": "index.zh.md",
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
}
_CODE = re.compile(r"^( *)```.*?^\1```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(\]\()(?!\w+:|#|/)([^)#\s]+)(#[^)\s]*)?(\))")
_DEFINED = re.compile(r"^(\[[^\]^]+\]: )(?!\w+:|#|/)([^#\s]+)(#\S*)?()$", re.MULTILINE)
_LANGUAGES = {".py": "python", ".toml": "toml", ".json": "json", ".sh": "sh", ".yml": "yaml"}


def assemble(to: Path, root: Path = ROOT) -> None:
    """Write the pages to the folder; what is in it and no page any more is removed."""
    pages = {**dict(_pages(root)), "checks.md": checks_page(root).encode("utf-8")}
    for path, made in pages.items():
        _write(to / path, made)
    for file in [*to.rglob("*")]:
        if file.is_file() and file.relative_to(to).as_posix() not in pages:
            file.unlink()


def _pages(root: Path) -> Iterator[tuple[str, bytes]]:
    """Yield each file of the site by its path in it."""
    docs = root / "docs"
    # Of a file of the repository, its place in the site; those that are yet to be made.
    places = {f"docs/{path}": path for path in _files(docs)}
    own = {path: place for path, place in PLACES.items() if (root / path).is_file()}
    own = {path: place for path, place in own.items() if place not in places.values()}
    waiting = [*places.items(), *own.items()]
    places |= {path: place for path, place in PLACES.items() if (root / path).is_file()}

    def place(path: str) -> str | None:
        if (root / path).is_dir():
            path += "/README.md"  # what a forge shows of a folder
        if path not in places and (root / path).is_file():
            places[path] = _place(path)
            waiting.append((path, places[path]))
        return places.get(path)

    while waiting:
        path, to = waiting.pop()
        data = (root / path).read_bytes()
        if path.endswith(".md"):
            data = _relinked(data.decode("utf-8"), path, to, place).encode("utf-8")
        elif not path.startswith("docs/") and to.endswith(".md"):
            data = _shown(data.decode("utf-8"), path).encode("utf-8")
        yield to, data


def _files(folder: Path) -> Iterator[str]:
    for file in sorted(folder.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            yield file.relative_to(folder).as_posix()


def _place(path: str) -> str:
    """Return where in the site a file is that is not of ``docs/``."""
    is_text = PurePosixPath(path).suffix in _LANGUAGES or path.endswith(".txt")
    # No second dot: what stands before ".md" is taken for a language.
    return f"project/{path.replace('.', '_')}.md" if is_text else f"project/{path}"


def _relinked(text: str, path: str, to: str, place: Callable[[str], str | None]) -> str:
    """Return the page with its links as they are in the site."""
    here, there = posixpath.dirname(path), posixpath.dirname(to)

    def link(match: re.Match[str]) -> str:
        target = place(posixpath.normpath(posixpath.join(here, match[2])))
        if target is None:
            return match[0]  # a dead link, which the site's own check tells of
        return f"{match[1]}{posixpath.relpath(target, there or '.')}{match[3] or ''}{match[4]}"

    code: list[str] = []

    def keep(match: re.Match[str]) -> str:
        code.append(match[0])
        return f"\0{len(code) - 1}\0"

    text = _DEFINED.sub(link, _LINK.sub(link, _CODE.sub(keep, text)))
    return re.sub(r"\0(\d+)\0", lambda match: code[int(match[1])], text)


def _shown(text: str, path: str) -> str:
    """Return a page that shows a file."""
    fence = "`" * (3 + max(map(len, re.findall(r"`{3,}", text)), default=0))
    language = _LANGUAGES.get(PurePosixPath(path).suffix, "text")
    return f"# {path}\n\n{fence}{language}\n{text.rstrip()}\n{fence}\n"


def _write(file: Path, data: bytes) -> None:
    # Not where it is the same: a server that watches the folder would build again.
    if not file.is_file() or file.read_bytes() != data:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
