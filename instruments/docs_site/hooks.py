"""Does as hooks of mkdocs what the site needs and its plugins do not do."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from docs_site.anchors import with_anchors
from docs_site.assemble import assemble
from docs_site.translations import notes

_START = re.compile(r'href="/(zh/)?"( hreflang=)')
_ALTERNATE = re.compile(r'\s*<link rel="alternate" [^>]*hreflang=[^>]*>')
_MERMAID = re.compile(r'\s*<script src="[^"]*mermaid[^"]*"></script>')
_TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)
_ROW = re.compile(r"<tr>.*?</tr>", re.DOTALL)
_CELL = re.compile(r"<t[dh]( [^>]*)?>(.*?)</t[dh]>", re.DOTALL)
_TAG = re.compile(r"<[^>]*>")
#: Letters in a cell from which its column is one of sentences, and gets room for them.
_SENTENCE = 30
UNTRANSLATED = '!!! note ""\n    本页尚无中文版，以下为英文原文。\n\n'  # noqa: RUF001
BEHIND = '!!! note ""\n    英文版已更新，本页尚缺：{missing}\n\n'  # noqa: RUF001


def on_config(config: Any) -> Any:
    """Put the pages together, and leave optional ones that are not there out of the navigation."""
    docs = Path(config.docs_dir)
    assemble(docs)
    config.nav = _there(config.nav, {*config.extra["optional"]}, docs)
    return config


def on_pre_build(config: Any) -> None:
    """Put the pages together anew, for the server that builds again and again."""
    assemble(Path(config.docs_dir))


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Note on a page among the Chinese ones that it is English, or behind the English one.

    One that is Chinese gets the anchors of the English one.
    """
    if not page.file.dest_uri.startswith("zh/"):
        return markdown
    if not page.file.src_uri.endswith(".zh.md"):
        return UNTRANSLATED + markdown
    english = Path(config.docs_dir, page.file.src_uri.removesuffix(".zh.md") + ".md")
    markdown = with_anchors(markdown, english.read_text("utf-8"))
    missing = notes(markdown).missing
    return BEHIND.format(missing=missing) + markdown if missing else markdown


def on_page_content(html: str, **_: Any) -> str:
    """Mark the cells of tables in whose column sentences stand: others leave them one word wide."""
    return _TABLE.sub(lambda found: _with_sentences_marked(found[0]), html)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Mend links between languages, and load large scripts only where they are used.

    The start pages' links to other languages are absolute, which is wrong below a path such as
    ``/unicb/0.2/``. And the theme asks for a ``sitemap.xml`` beside every alternate, which is not
    there; the one at the top has them all.
    """
    up = "../" * page.url.count("/") or "./"
    output = _ALTERNATE.sub("", _START.sub(lambda m: f'href="{up}{m[1] or ""}"{m[2]}', output))
    return output if 'class="mermaid"' in output else _MERMAID.sub("", output)


def _with_sentences_marked(table: str) -> str:
    rows = [[_TAG.sub("", cell[2]) for cell in _CELL.finditer(row)] for row in _ROW.findall(table)]
    wide = {i for row in rows for i, text in enumerate(row) if len(text) >= _SENTENCE}

    def marked(row: re.Match[str]) -> str:
        cells = [cell.span() for cell in _CELL.finditer(row[0])]
        text = row[0]
        for i, (start, _) in reversed([*enumerate(cells)]):
            if i in wide:
                text = f'{text[: start + 3]} class="unicb-sentences"{text[start + 3 :]}'
        return text

    return _ROW.sub(marked, table)


def _there(entries: list[Any], optional: set[str], docs: Path) -> list[Any]:
    """Return the entries of a navigation without those optional ones whose page is not there."""
    kept: list[Any] = []
    for entry in entries:
        ((title, target),) = entry.items()
        if isinstance(target, list):
            kept.append({title: _there(target, optional, docs)})
        elif target not in optional or (docs / target).is_file():
            kept.append(entry)
    return kept
