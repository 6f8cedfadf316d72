"""The README is short, and its links work where the package is shown."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "instruments"))

import project_urls  # noqa: E402
from readme_for_index import readme_for_index  # noqa: E402

README = (ROOT / "README.md").read_text("utf-8")
LINK = re.compile(r"\]\(([^)\s]+)\)")
ADDRESS = "https://host.example/owner/unicb"


def test_readme_is_short() -> None:
    assert README.count("\n") <= 120
    for command in ("nox && nox -s demo", "nox && nox"):
        assert f"```sh\npython -m pip install {command}\n```" in README


def test_links_are_absolute_where_there_is_an_address() -> None:
    links = LINK.findall(readme_for_index(README, ADDRESS))
    assert len(links) == len(LINK.findall(README)) > 10
    assert links[0] == f"{ADDRESS}/raw/HEAD/docs/images/contact_sheet.png"
    assert all(link.startswith(f"{ADDRESS}/blob/HEAD/") for link in links[1:])


def test_no_link_is_dead_where_there_is_none() -> None:
    shown = readme_for_index(README, "")
    assert LINK.findall(shown) == []
    assert "First run in ten minutes" in shown
    code = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
    assert code.findall(shown) == code.findall(README)


@pytest.mark.parametrize("urls", [{}, {"Source": ADDRESS}])
def test_the_build_is_handed_the_readme(
    urls: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Asked(project_urls.ProjectURLs):
        root = str(ROOT)

        def __init__(self) -> None:
            """Does without what hatchling gives."""

    monkeypatch.setattr(project_urls, "urls_of", lambda root: urls)
    metadata: dict[str, Any] = {}
    Asked().update(metadata)
    assert metadata["readme"]["content-type"] == "text/markdown"
    assert metadata["readme"]["text"] == readme_for_index(README, urls.get("Source", ""))
