"""A CLIP tokenizer whose vocabulary is made here: the captions' words, and all single bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 16
"""Tokens in an encoded prompt. A caption takes nine."""


def _byte_letters() -> list[str]:
    """Return the 256 printable letters by which byte-level BPE writes bytes, in CLIP's order."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) for byte in plain] + [chr(256 + i) for i in range(256 - len(plain))]


def _spelling(word: str) -> list[str]:
    return [*word[:-1], word[-1] + "</w>"]


def build_vocabulary(words: Iterable[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return the token numbers and BPE merges by which each of the words is one token.

    Words are merged from their end. A merge belongs to one word ending only, so that learning
    one word never breaks another. Other text falls back to single bytes, as in CLIP.
    """
    letters = _byte_letters()
    tokens = dict.fromkeys([*letters, *(letter + "</w>" for letter in letters)])
    merges: dict[tuple[str, str], None] = {}
    for word in sorted(set(words)):
        parts = _spelling(word)
        while len(parts) > 1:
            pair = (parts[-2], parts[-1])
            merges[pair] = None
            tokens["".join(pair)] = None
            parts[-2:] = ["".join(pair)]
    return {token: i for i, token in enumerate([*tokens, START, END])}, list(merges)


def write_tokenizer(folder: Path, words: Iterable[str]) -> None:
    """Write the files from which both transformers 4 and 5 read a `CLIPTokenizer`.

    transformers 5 would save only tokenizer.json, which transformers 4's slow tokenizer, the one
    that mindone uses, cannot read. Hence the older files, written out here.
    """
    vocabulary, merges = build_vocabulary(words)
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    config = special | {
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": LENGTH,
        "tokenizer_class": "CLIPTokenizer",
    }
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, content in (
        ("vocab.json", vocabulary),
        ("special_tokens_map.json", special),
        ("tokenizer_config.json", config),
    ):
        text = json.dumps(content, ensure_ascii=False, indent=1)
        (folder / name).write_text(text + "\n", encoding="utf-8")
