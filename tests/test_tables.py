"""The data files are read by the table, and mean what they mean to TOML."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.resources import files

import pytest

from unicb._tables import FactTable, Tables
from unicb.latents import builtin_formats
from unicb.latents.schedules import known_schedulers
from unicb.pipelines import facts
from unicb.run.holds import hold

FILES = [
    (package, file.name)
    for package in ("unicb.pipelines", "unicb.latents")
    for file in files(package).iterdir()
    if file.name.endswith(".toml")
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


@dataclass(frozen=True)
class Row:
    frames: tuple[str, ...] = ()


class OneKnown(FactTable[Row]):
    """A table without a file."""

    def __init__(self) -> None:
        self._texts = {"Known": 'frames = ["one"]'}
        self._made, self._make, self._row = {}, self._make_row, Row


def kind_of(name: str, *bases: type, **attributes: object) -> type:
    return type(name, bases, attributes)


def test_facts_are_those_of_the_nearest_base() -> None:
    table, known = OneKnown(), kind_of("Known")
    assert table.about(known) == Row(("one",))
    assert table.owner(kind_of("Mine", known)) is known
    assert table.about(kind_of("Other")) is None
    own = kind_of("Own", known, unicb_facts=Row(("two",)))
    assert table.about(kind_of("Mine", own)) == Row(("two",))
    assert table.owner(kind_of("Mine", own)) is own


def test_a_class_may_say_that_it_is_unknown() -> None:
    unknown = kind_of("Unknown", kind_of("Known"), unicb_facts=None)
    assert OneKnown().about(unknown) is None
    assert OneKnown().owner(kind_of("Mine", unknown)) is None


def test_a_class_that_an_object_has_for_a_while_hides_nothing() -> None:
    known = kind_of("Known", step=lambda self: 1)()

    class Owner:
        def owns_current_call(self) -> bool:
            return True

    held = hold(known, "step", lambda: 2, Owner())  # type: ignore[arg-type]
    assert known.step() == 2
    assert OneKnown().about(type(known), unless="step") == Row(("one",))
    held.release()
    assert known.step() == 1


def test_facts_of_another_table_say_nothing_here() -> None:
    other = kind_of("Other", kind_of("Known"), unicb_facts=object())
    assert OneKnown().about(other) == Row(("one",))


def test_facts_of_bases_do_not_count_where_a_method_is_overridden() -> None:
    known = kind_of("Known", step=None)
    other = kind_of("Other", known, step=None)
    assert OneKnown().about(known, unless="step") == Row(("one",))
    assert OneKnown().about(kind_of("Mine", known), unless="step") == Row(("one",))
    assert OneKnown().about(other, unless="step") is None
    assert OneKnown().about(other) == Row(("one",))
