"""The addresses in the metadata: of where a clone comes from, and none that is not public."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "instruments"))

from project_urls import address_of, urls_of

ADDRESS = "https://example.org/people/unicb"


@pytest.mark.parametrize(
    "remote",
    [
        "https://example.org/people/unicb.git",
        "https://example.org/people/unicb/",
        "http://example.org/people/unicb",
        "https://somebody:secret@example.org:8443/people/unicb.git",
        "ssh://git@example.org:2222/people/unicb.git",
        "git@example.org:people/unicb.git",
        "example.org:people/unicb",
    ],
)
def test_a_remote_that_people_can_look_at(remote: str) -> None:
    assert address_of(remote) == ADDRESS


@pytest.mark.parametrize(
    "remote",
    [
        *("/srv/git/unicb.git", "../unicb", "file:///srv/git/unicb.git", ".", ""),
        *("git@work:people/unicb.git", "https://localhost/unicb", "https://10.0.0.7/people/unicb"),
        *("https://example.org/", "C:\\clones\\unicb"),
    ],
)
def test_a_remote_that_is_not_for_everybody(remote: str) -> None:
    assert address_of(remote) is None


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)


def test_of_a_clone(tmp_path: Path) -> None:
    assert urls_of(tmp_path) == {}
    git(tmp_path, "init", "-q")
    assert urls_of(tmp_path) == {}
    git(tmp_path, "remote", "add", "origin", f"{ADDRESS}.git")
    assert urls_of(tmp_path) == {"Source": ADDRESS, "Issues": f"{ADDRESS}/issues"}
    unpacked = tmp_path / "unicb-0.1.0"
    unpacked.mkdir()
    assert urls_of(unpacked) == {}  # whose clone it lies in is not where it comes from
