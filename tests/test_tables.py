"""The data files are read by the table, and mean what they mean to TOML."""

from __future__ import annotations

import tomllib
from importlib.resources import files

import pytest

from unicb._tables import Tables
from unicb.latents import builtin_formats
from unicb.latents.schedules import known_schedulers
from unicb.pipelines import facts

FILES = [
    *(
        ("unicb.pipelines", file.name)
        for file in files("unicb.pipelines").iterdir()
        if file.name.endswith(".toml")
    ),
    *(("unicb.latents", name) for name in ("formats.toml", "schedulers.toml")),
]


@pytest.mark.parametrize(("package", "name"), FILES, ids=lambda part: part)
def test_tables_are_those_of_the_whole_file(package: str, name: str) -> None:
    text = files(package).joinpath(name).read_text(encoding="utf-8")
    tables = Tables(package, name, lambda _, entry: entry)
    assert dict(tables) == tomllib.loads(text)
    assert len(tables) > 0


def test_a_table_is_parsed_once_and_the_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    loads = tomllib.loads
    monkeypatch.setattr(tomllib, "loads", lambda text: parsed.append(text) or loads(text))
    tables = Tables("unicb.latents", "formats.toml", lambda name, entry: (name, entry["factors"]))
    assert "sd" in tables
    assert {"sd", "sdxl"} < set(tables)
    assert parsed == []
    assert tables["sd"] is tables["sd"]
    assert tables["sd"][0] == "sd"
    assert len(parsed) == 1
    assert "latent_channels = 4" in parsed[0]


def test_unknown_names() -> None:
    assert builtin_formats().get("no such format") is None
    with pytest.raises(KeyError, match="no such format"):
        builtin_formats()["no such format"]


def test_names_need_no_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(text: str) -> None:
        raise AssertionError(text)

    facts._table.cache_clear()
    monkeypatch.setattr(tomllib, "loads", fail)
    assert len(facts.known_pipelines()) > 200
    assert "EulerDiscreteScheduler" in known_schedulers()
