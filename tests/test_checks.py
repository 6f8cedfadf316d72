"""Checks of arguments: what they let pass, what they say, and that they stand once."""

from __future__ import annotations

import ast
import math
import re
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import unicb
from unicb import checks

PACKAGE = Path(unicb.__file__).parent
CHECKS = PACKAGE / "checks.py"
#: The suite judges backends and not arguments.
FILES = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path != CHECKS and path.relative_to(PACKAGE).parts[0] != "testing"
]

INTS = [checks.whole_number, checks.step_index]
NUMBERS = [
    checks.number,
    lambda name, value: checks.number_within(name, value, -1e6, 1e6),
    checks.number_from_0,
    checks.number_above_0,
    checks.seconds,
    checks.share,
]
NO_NUMBERS = [
    *(None, "1", "", b"1", True, False, np.True_, np.False_),
    *([1], (1,), {}, 1j, Decimal(1), np.array(1), np.array([1.0]), object(), int, print),
]
NAMES = {check: name for name, check in vars(checks).items() if callable(check)}


def said(check: Callable[..., Any], *arguments: Any, **more: Any) -> str:
    """What a check says of an argument "it", which it refuses."""
    with pytest.raises((TypeError, ValueError)) as caught:
        check("it", *arguments, **more)
    assert type(caught.value) in (TypeError, ValueError)
    return f"{caught.type.__name__}: {caught.value}"


def named(value: object) -> str:
    """A name for a case, the same in every process."""
    return "an object" if type(value) is object else repr(value)


@pytest.mark.parametrize("value", NO_NUMBERS, ids=named)
@pytest.mark.parametrize("check", [*INTS, *NUMBERS], ids=lambda check: NAMES.get(check, "within"))
def test_no_numbers(check: Callable[..., Any], value: Any) -> None:
    says = said(check, value)
    assert re.match("TypeError: it must be (an int|a number)", says)
    assert says.endswith(f"not {checks.shown(value)}")


@pytest.mark.parametrize("value", [1.0, np.float64(1.0), np.float32(2.0), math.nan, math.inf])
@pytest.mark.parametrize("check", INTS)
def test_floats_are_no_ints(check: Callable[..., Any], value: float) -> None:
    assert said(check, value) == f"TypeError: it must be an int, not {checks.shown(value)}"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan"), 10**400])
@pytest.mark.parametrize("check", NUMBERS, ids=lambda check: NAMES.get(check, "within"))
def test_numbers_are_finite(check: Callable[..., Any], value: float) -> None:
    assert re.match("ValueError: it must (be|lie) (finite|in|above 0)", said(check, value))
    assert str(value) in said(check, value)


KINDS = [int, np.int8, np.int64, np.uint8, np.uint64]
FLOATS = [float, np.float16, np.float32, np.float64, Fraction]


@pytest.mark.parametrize("kind", KINDS)
@given(number=st.integers(0, 127))
def test_ints_of_any_kind_become_ints(kind: Any, number: int) -> None:
    for check in INTS:
        if number or check is not checks.whole_number:
            found = check("it", kind(number))
            assert type(found) is int
            assert found == number


@pytest.mark.parametrize("kind", [*KINDS, *FLOATS])
@given(number=st.integers(0, 127))
def test_numbers_of_any_kind_become_floats(kind: Any, number: int) -> None:
    for check in NUMBERS:
        if number <= 1 if check is checks.share else number:
            found = check("it", kind(number))
            assert type(found) is float
            assert found == number


@given(value=st.integers(), least=st.integers())
def test_whole_number(value: int, least: int) -> None:
    if value >= least:
        assert checks.whole_number("it", value, least) == value
    else:
        assert said(checks.whole_number, value, least) == (
            f"ValueError: it must be at least {least}, not {value}"
        )


@given(value=st.integers())
def test_step_index(value: int) -> None:
    if value >= 0:
        assert checks.step_index("it", value) == value
    else:
        assert said(checks.step_index, value) == (
            f"ValueError: it counts steps from 0 and must not be negative, not {value}"
        )


FINITE = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9)
EDGES = st.sampled_from([0, 0.0, -0.0, 1, 1.0, math.nextafter(0, 1), math.nextafter(1, 2)])


@given(value=FINITE)
def test_number(value: float) -> None:
    assert checks.number("it", value) == value


@given(value=FINITE | EDGES)
def test_share(value: float) -> None:
    if 0 <= value <= 1:
        assert checks.share("it", value) == value
    else:
        assert (
            said(checks.share, value)
            == f"ValueError: it must lie in 0..1, not {checks.shown(value)}"
        )


@given(value=FINITE | EDGES)
def test_number_within(value: float) -> None:
    if 0.5 <= value <= 2:
        assert checks.number_within("it", value, 0.5, 2) == value
    else:
        assert said(checks.number_within, value, 0.5, 2) == (
            f"ValueError: it must be in 0.5..2, not {value}"
        )


@given(value=FINITE | EDGES)
def test_signs(value: float) -> None:
    if value >= 0:
        assert checks.number_from_0("it", value) == value
    else:
        assert said(checks.number_from_0, value) == (
            f"ValueError: it must be 0 or more, not {checks.shown(value)}"
        )
    if value > 0:
        assert checks.number_above_0("it", value) == checks.seconds("it", value) == value
    else:
        says = "ValueError: it must be above 0{} and finite, not {!r}"
        assert said(checks.number_above_0, value) == says.format("", value)
        assert said(checks.seconds, value) == says.format(" seconds", value)


def test_what_a_caller_adds_to_a_message() -> None:
    assert said(checks.share, 2, "is a share and must lie in 0..1", "; step i is at i / n") == (
        "ValueError: it is a share and must lie in 0..1, not 2; step i is at i / n"
    )
    assert said(checks.share, "2", kind="a number in 0..1") == (
        "TypeError: it must be a number in 0..1, not '2'"
    )
    assert said(checks.number_from_0, -2, "must be a range") == (
        "ValueError: it must be a range, not -2"
    )
    assert said(checks.number_above_0, 0, hint="; None is no limit") == (
        "ValueError: it must be above 0 and finite, not 0; None is no limit"
    )


@pytest.mark.parametrize(
    ("words", "besides", "allowed"),
    [
        (("a",), (), "'a'"),
        (("a", "b"), (), "'a' or 'b'"),
        (("a", "b", "c"), (), "'a', 'b' or 'c'"),
        (("a",), ("None",), "'a' or None"),
        (("a", "b"), ("a function",), "'a', 'b' or a function"),
    ],
)
@pytest.mark.parametrize(
    "value", ["d", "", "A", None, True, 0, ["a"], {}, np.array(["a", "b"])], ids=named
)
def test_one_of(words: tuple[str, ...], besides: tuple[str, ...], allowed: str, value: Any) -> None:
    assert said(checks.one_of, value, words, *besides) == (
        f"ValueError: it must be {allowed}, not {checks.shown(value)}"
    )
    assert [checks.one_of("it", word, words, *besides) for word in words] == [*words]


@pytest.mark.parametrize("value", [0, 1, None, "True", np.True_, [True]], ids=named)
def test_flag(value: Any) -> None:
    assert (
        said(checks.flag, value)
        == f"TypeError: it must be True or False, not {checks.shown(value)}"
    )
    assert checks.flag("it", True) is True
    assert checks.flag("it", False) is False


def test_only_the_standard_library_is_imported() -> None:
    imported = {
        name
        for node in ast.walk(ast.parse(CHECKS.read_text("utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([str(node.module)] if isinstance(node, ast.ImportFrom) else names(node))
    }
    assert imported
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names


def names(node: ast.Import) -> list[str]:
    return [alias.name for alias in node.names]


def test_every_check_is_used() -> None:
    used = {
        alias.name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == "unicb.checks"
        for alias in node.names
    }
    assert used == {*checks.__all__}


#: What the checks say; "{}" is what is filled in.
_SAYS = re.compile(
    r"must be (an int|a number|a number of seconds|{}), not"
    r"|must be (at least|above 0|finite|True or False|0 or more)"
    r"|must not be negative|must be in {}|must (be|lie) in 0\.\.1"
)


def hand_written(code: str) -> Iterator[str]:
    """What is in the code of checks that unicb.checks has."""
    for node in ast.walk(ast.parse(code)):
        # np.bool_ beside it: it is a bool that is wanted, and no number.
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
            kinds = set(re.findall(r"[\w.]+", ast.unparse(node.args[1])))
            if "bool" in kinds and "np.bool_" not in kinds:
                yield ast.unparse(node)
        elif isinstance(node, ast.Raise) and _SAYS.search(_literal(node)):
            yield _literal(node)
        elif isinstance(node, ast.If) and _compares_words(node.test):
            raised = [each for each in node.body if isinstance(each, ast.Raise)]
            yield from (text for each in raised if "must be" in (text := _literal(each)))


def _compares_words(test: ast.expr) -> bool:
    """Whether it asks if something is not one of several, or not this word."""
    return any(
        isinstance(operator, ast.NotIn)
        or (isinstance(operator, ast.NotEq) and isinstance(getattr(other, "value", None), str))
        for compared in ast.walk(test)
        if isinstance(compared, ast.Compare)
        for operator, other in zip(compared.ops, compared.comparators, strict=True)
    )


def _literal(node: ast.Raise) -> str:
    """The text that is raised, with "{}" for what is filled in."""
    strings = [part for part in ast.walk(node) if isinstance(part, ast.JoinedStr)]
    if not strings:
        constants = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
        return " ".join(value for value in constants if isinstance(value, str))
    return " ".join(
        "".join(
            str(part.value) if isinstance(part, ast.Constant) else "{}" for part in string.values
        )
        for string in strings
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_checks_stand_once(path: Path) -> None:
    assert [*hand_written(path.read_text("utf-8"))] == []
    assert len(FILES) > 90


@pytest.mark.parametrize(
    "code",
    [
        "if isinstance(value, bool) or not isinstance(value, int):\n    raise error",
        "if isinstance(value, (bool, str)):\n    raise error",
        "raise TypeError(f'{name} must be an int, not {value!r}')",
        "raise TypeError(f'deadline must be a number of seconds, not {deadline!r}')",
        "raise ValueError(f'{name} must be at least {least}, not {value}')",
        "raise ValueError(f'{name} must be in {low:g}..{high:g}, not {value}')",
        "raise ValueError(f'{name} must be finite, not {value!r}')",
        "raise ValueError(f'{name} is a share, and must lie in 0..1, not {value!r}')",
        "raise ValueError('max_fps must be above 0; None is no limit')",
        "raise ValueError(f'{name} counts steps from 0 and must not be negative, not {value}')",
        "if x not in WORDS:\n    raise ValueError(f\"picture must be 'a' or 'b', not {x!r}\")",
        "if x != 'a':\n    raise ValueError(f\"picture must be 'a' or None, not {x!r}\")",
    ],
)
def test_hand_written_checks_are_seen(code: str) -> None:
    assert [*hand_written(code)]
