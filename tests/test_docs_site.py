"""What builds the documentation site, as far as it needs no generator: the pages put together, the
check of links and hosts, and whether translations are up to date."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "instruments"))

from docs_site import hooks  # noqa: E402
from docs_site.anchors import anchors, with_anchors  # noqa: E402
from docs_site.assemble import assemble  # noqa: E402
from docs_site.check import faults as faults_of_site  # noqa: E402
from docs_site.translations import faults, hash_of, mark, notes, translations  # noqa: E402


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write(tmp_path / "README.md", "# P\n[guide](docs/guide.md)\n")
    write(tmp_path / "CHANGELOG.md", "# Changes\n")
    write(tmp_path / "examples/e.py", "print('```')\n")
    write(
        tmp_path / "examples/shapes/README.md", "# S\n![p](p.png) [e](../e.py) [d][1]\n\n[1]: .\n"
    )
    (tmp_path / "examples/shapes/p.png").write_bytes(b"png")
    write(tmp_path / "unicb/testing/_ops.py", '"""Ops."""\n')
    text = "[e](../examples/e.py) [s](../examples/shapes) [r](../README.md#p) `[x](../no.py)`\n"
    write(tmp_path / "docs/guide.md", text)
    return tmp_path


def test_what_pages_link_to_is_in_the_site(project: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    write(site / "old.md", "a page that is no more")
    assemble(site, project)
    there = {file.relative_to(site).as_posix() for file in site.rglob("*") if file.is_file()}
    pages = {"index.md", "guide.md", "changes.md", "checks.md"}
    project_pages = {"examples/e_py.md", "examples/shapes/README.md", "examples/shapes/p.png"}
    assert there == pages | {f"project/{path}" for path in project_pages}
    assert (site / "guide.md").read_text("utf-8") == (
        "[e](project/examples/e_py.md) [s](project/examples/shapes/README.md) [r](index.md#p) "
        "`[x](../no.py)`\n"
    )
    assert "[e](../e_py.md)" in (site / "project/examples/shapes/README.md").read_text("utf-8")
    assert "````python\nprint('```')\n````" in (site / "project/examples/e_py.md").read_text(
        "utf-8"
    )


def test_a_second_time_writes_nothing(project: Path, tmp_path: Path) -> None:
    """Or the server that watches would build for ever."""
    site = tmp_path / "site"
    assemble(site, project)
    before = {file: file.stat().st_mtime_ns for file in site.rglob("*")}
    assemble(site, project)
    assert {file: file.stat().st_mtime_ns for file in site.rglob("*")} == before


@pytest.mark.parametrize(
    ("html", "said"),
    [
        ('<script src="https://cdn.example/x.js"></script>', "loads https://cdn.example/x.js"),
        ('<link rel="stylesheet" href="//fonts.example/x">', "loads //fonts.example/x"),
        ("<style>a { background: url(https://a.example/b) }</style>", "loads url(https:"),
        ('<img src="no.png">', "loads no.png, which is not there"),
        ('<a href="../no/">n</a>', "links to ../no/, which is not there"),
        ('<a href="#no">n</a>', "links to #no, but the page has no such anchor"),
    ],
)
def test_faults_of_a_site_are_told(tmp_path: Path, html: str, said: str) -> None:
    good = '<a id="here" href="#here">h</a><a href="https://a.example/">a</a>'
    write(tmp_path / "page/index.html", good)
    assert list(faults_of_site(tmp_path)) == []
    write(tmp_path / "page/index.html", good + html)
    (found,) = faults_of_site(tmp_path)
    assert said in found


ENGLISH = "# Stop\n\n```python\nx = 1  # one\n```\n"
CHINESE = "# 停止\n\n```python\nx = 1  # 一\n```\n"


def test_translation_is_behind_when_the_english_page_changes(tmp_path: Path) -> None:
    english = write(tmp_path / "docs/stop.md", ENGLISH)
    page = write(tmp_path / "docs/stop.zh.md", CHINESE)
    assert list(translations(tmp_path)) == [(page, english)]
    assert "has changed since" in faults(page, english)[0]
    mark(page, english)
    assert faults(page, english) == []
    assert notes(page.read_text("utf-8")).translates == hash_of(ENGLISH)
    write(english, ENGLISH + "\nMore.\n")
    assert "has changed since" in faults(page, english)[0]
    write(page, page.read_text("utf-8") + "<!-- missing: the last sentence -->\n")
    assert faults(page, english) == []
    mark(page, english)
    assert faults(page, english) == []


def test_translation_with_other_code_is_a_fault(tmp_path: Path) -> None:
    english = write(tmp_path / "docs/stop.md", ENGLISH)
    page = write(tmp_path / "docs/stop.zh.md", CHINESE.replace("x = 1", "x = 2"))
    mark(page, english)
    assert faults(page, english) == ["the code of stop.zh.md is not that of stop.md"]
    english.unlink()
    assert "not there" in faults(page, english)[0]


def test_list_that_is_made_from_docstrings_is_not_translated(tmp_path: Path) -> None:
    made = ENGLISH + "\n<!-- checks -->\n\n- `test_a`: {}\n\n<!-- /checks -->\n"
    assert hash_of(made.format("One.")) == hash_of(made.format("Two."))
    assert hash_of(made.format("One.")) != hash_of(made.format("One.") + "More.\n")


def test_translation_with_other_headings_is_a_fault(tmp_path: Path) -> None:
    english = write(tmp_path / "docs/stop.md", ENGLISH + "\n## How\n")
    page = write(tmp_path / "docs/stop.zh.md", CHINESE)
    mark(page, english)
    assert faults(page, english) == ["the headings of stop.zh.md are not those of stop.md"]


def test_headings_of_a_translation_have_the_english_anchors() -> None:
    english = (
        "# A\n\n## The `b` of [c](d.md)\n\n```sh\n# no\n```\n\n### Why\n\n### Why\n\n## Ctrl-C\n"
    )
    chinese = "# 甲\n\n## 乙\n\n```sh\n# no\n```\n\n### 丙\n\n### 丁\n\n## Ctrl-C\n"
    assert anchors(english) == ["a", "the-b-of-c", "why", "why_1", "ctrl-c"]
    assert with_anchors(chinese, english) == (
        '# 甲\n\n## <a id="the-b-of-c"></a>乙\n\n```sh\n# no\n```\n\n'
        '### <a id="why"></a>丙\n\n### <a id="why_1"></a>丁\n\n## Ctrl-C\n'
    )
    assert with_anchors(chinese + "\n## 多\n", english) == chinese + "\n## 多\n"


def test_translations_of_the_project_are_up_to_date() -> None:
    assert [fault for pair in translations(ROOT) for fault in faults(*pair)] == []


def test_columns_of_sentences_are_marked() -> None:
    table = (
        '<table>\n<thead>\n<tr>\n<th>class</th>\n<th style="text-align: right;">n</th>\n'
        "<th>why</th>\n</tr>\n</thead>\n<tbody>\n<tr>\n<td><code>A</code></td>\n"
        '<td style="text-align: right;">1</td>\n<td>{why}</td>\n</tr>\n</tbody>\n</table>'
    )
    short, long = (f"<p>a</p>{table.format(why=why)}" for why in ("no", "no <b>one</b> knows " * 3))
    assert hooks.on_page_content(short) == short
    marked = hooks.on_page_content(long)
    assert marked == long.replace("<th>why", '<th class="unicb-sentences">why').replace(
        "<td>no", '<td class="unicb-sentences">no'
    )
