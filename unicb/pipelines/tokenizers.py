"""Recognise pipelines that were loaded or exported without their tokenizers."""

from __future__ import annotations

import re
from typing import Any

from unicb.errors import UnsupportedPipelineError

_TOKENIZER = re.compile(r"tokenizer(_\d+)?")


def lacks_tokenizer(pipeline: Any) -> bool:
    """Return whether a pipeline has attributes for tokenizers, and all of them are None."""
    places = [name for name in vars(pipeline) if _TOKENIZER.fullmatch(name)]
    return bool(places) and all(getattr(pipeline, name) is None for name in places)


def explained(pipeline: Any, error: BaseException) -> UnsupportedPipelineError | None:
    """Return the error to raise in place of ``error``, if the pipeline's call failed because a
    tokenizer is missing; else None."""
    if not isinstance(error, AttributeError | TypeError) or "'NoneType'" not in str(error):
        return None
    if not (_fails_by_a_tokenizer(error) and lacks_tokenizer(pipeline)):
        return None
    return UnsupportedPipelineError(
        f"this {type(pipeline).__name__} reads no texts, as it was loaded without a tokenizer; "
        "load it with tokenizer=..., or from a folder that has one, or call it with prompt_embeds"
    )


def _fails_by_a_tokenizer(error: BaseException) -> bool:
    """Return whether the function that raised the error uses a tokenizer."""
    traceback = error.__traceback__
    if traceback is None:
        return False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    code = traceback.tb_frame.f_code
    return any(map(_TOKENIZER.fullmatch, (*code.co_names, *code.co_varnames)))
