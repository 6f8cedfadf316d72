"""docs/errors.md has every message of unicb's own errors, with a cause and what to do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from unicb import Callback, CFGCutoff, Step, UnicbError, bind
from unicb_numpy.pipelines import ToyPipeline

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "instruments"))

from docs_site.messages import GAP, PAGE, Message, messages, page, remedies  # noqa: E402

MESSAGES = messages()


def test_every_message_has_an_entry() -> None:
    """Where this fails: give the message one in instruments/docs_site/remedies.toml, and run
    python instruments/docs_site/messages.py."""
    entries = remedies()
    without = [m for m in MESSAGES if not any(entry.is_about(m) for entry in entries)]
    assert without == []
    assert len(MESSAGES) > 90


def test_every_entry_is_about_a_message() -> None:
    for entry in remedies():
        for words in entry.words:
            assert any(words in message.text for message in MESSAGES), (entry.title, words)
        assert entry.cause.strip()
        assert entry.remedy.strip()


def test_page_is_made_from_the_code() -> None:
    """Where this fails: run python instruments/docs_site/messages.py."""
    assert PAGE.read_text("utf-8") == page()


def test_messages_are_found_by_the_words_that_are_raised() -> None:
    class Unknown(ToyPipeline):
        _callback_tensor_inputs = ("latents",)

    class Preferred(Callback):
        tensors = ("nothing",)

        def on_step_end(self, step: Step) -> None: ...

    for made in (lambda: bind(object(), CFGCutoff(0.4)), lambda: bind(Unknown(), Preferred())):
        with pytest.raises(UnicbError) as raised:
            made()
        assert any(said(str(raised.value), message) for message in MESSAGES), raised.value


def said(text: str, message: Message) -> bool:
    """Whether an error's text has all parts of the message between its gaps, in their order."""
    at = 0
    for part in map(str.strip, message.text.split(GAP)):
        found = " ".join(text.split()).find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return len(message.text) > 20
