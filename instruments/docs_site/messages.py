"""Reads the messages of unicb's own errors from its code, and makes the page on what to do.

    python instruments/docs_site/messages.py    writes docs/errors.md

Each message belongs to an entry of ``remedies.toml``, which has its cause and what to do;
``tests/test_errors_page.py`` fails where a message has none.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "errors.md"
REMEDIES = Path(__file__).with_name("remedies.toml")
ERRORS = (
    *("UnsupportedPipelineError", "PipelineBusyError", "BackendNotFoundError", "BackendLoadError"),
    *("LatentsNotFiniteError", "RankError", "UnicbError"),
)
#: What stands in a message where the code puts something in.
GAP = "…"
INTRODUCTION = """\
# Errors

Every message that unicb raises on its own account, with its cause and what to do. Search this page
for the words of yours: … stands for a name or a number. Errors of the frameworks are in
[troubleshooting](troubleshooting.md).

Wrong arguments (a ratio of 1.5, a string where a callback belongs) raise `ValueError` or
`TypeError`, whose messages say what was given and what is allowed; they are not listed here.

Made by `python instruments/docs_site/messages.py` from the code; the causes and remedies are in
`instruments/docs_site/remedies.toml`.
"""


@dataclass(frozen=True, order=True)
class Message:
    """Holds a message, with gaps, and the error that has it."""

    text: str
    error: str


@dataclass(frozen=True)
class Remedy:
    """Holds an entry: words in the messages that it is about, the cause, and what to do."""

    title: str
    words: tuple[str, ...]
    cause: str
    remedy: str

    def is_about(self, message: Message) -> bool:
        return any(words in message.text for words in self.words)


def messages(root: Path = ROOT) -> list[Message]:
    """Return all messages, once each; the conformance suite's are its own."""
    folders = [root / "unicb", root / "backends"]
    files = [file for folder in folders for file in sorted(folder.rglob("*.py"))]
    own = (file for file in files if "testing" not in file.parts)
    found = {message for file in own for message in _of(ast.parse(file.read_text("utf-8")))}
    return sorted(found)


def _of(tree: ast.Module) -> Iterator[Message]:
    functions = {f.name: f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            name = ast.unparse(node.func).rpartition(".")[2]
            if name in ERRORS:
                for text in _texts(node.args[0], functions):
                    yield Message(text, name)


def _texts(node: ast.expr, functions: dict[str, ast.FunctionDef]) -> Iterator[str]:
    """Yield the texts that an argument may be; of a call of a function, what that returns."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) in functions:
        for made in ast.walk(functions[ast.unparse(node.func)]):
            if isinstance(made, ast.Return) and made.value is not None:
                yield from _texts(made.value, functions)
    elif isinstance(node, ast.IfExp):
        yield from (*_texts(node.body, functions), *_texts(node.orelse, functions))
    else:
        text = " ".join(_text(node).split())
        if text.replace(GAP, "").strip(" :;,.()"):
            yield text


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(value) for value in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return GAP


def remedies(file: Path = REMEDIES) -> list[Remedy]:
    """Return the entries, in their order on the page."""
    entries = tomllib.loads(file.read_text("utf-8"))
    return [
        Remedy(title, tuple(entry["words"]), entry["cause"], entry["remedy"])
        for title, entry in entries.items()
    ]


def page() -> str:
    """Return the page in Markdown."""
    parts, every = [INTRODUCTION], messages()
    for remedy in remedies():
        mine = [message for message in every if remedy.is_about(message)]
        parts += [f"## {remedy.title}\n"]
        parts += [f"- `{message.error}`: `` {message.text} ``" for message in mine]
        parts += ["", f"**Cause.** {' '.join(remedy.cause.split())}", ""]
        parts += [f"**What to do.** {' '.join(remedy.remedy.split())}", ""]
    return "\n".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    missing = [m for m in messages() if not any(r.is_about(m) for r in remedies())]
    print(*(f"{m.error}: {m.text}" for m in missing), sep="\n")
    PAGE.write_text(page(), encoding="utf-8")
    sys.exit(bool(missing))
