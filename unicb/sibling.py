"""Make another pipeline on the same models, to run beside the first."""

from __future__ import annotations

import copy
import re
from typing import Any, TypeVar

from unicb.backend import backend_for
from unicb.errors import UnsupportedPipelineError
from unicb.runtime_copies import separate

P = TypeVar("P")

#: Names of components that a call changes, or that two threads must not share.
_OWN = re.compile(r"scheduler$|tokenizer(_\d+)?$|processor$|feature_extractor$|guider(_\d+)?$")


def sibling(pipeline: P) -> P:
    """Make another pipeline of the same class on the same models, with schedulers, tokenizers and
    processors of its own: so two runs at the same time do not count each other's steps.

    What is set on one of the two afterwards (a scheduler, a guidance scale) is not set on the
    other; what is done to a model (LoRA, offloading, compiling) is done for both. A model on ONNX
    Runtime or OpenVINO is another object on the same weights, since one serves one call at a time.

    Example:
        >>> from threading import Thread
        >>> other = sibling(pipe)
        >>> threads = [Thread(target=bind(p), args=("a red star",)) for p in (pipe, other)]
        >>> for thread in threads:
        ...     thread.start()
        >>> for thread in threads:
        ...     thread.join()

    Args:
        pipeline: a pipeline of a framework whose backend is installed.

    Raises:
        BackendNotFoundError: ``pipeline`` is no such pipeline.
        UnsupportedPipelineError: caching is enabled on one of the models, which then keeps results
            for its next call; or a component that has to be copied cannot be.
    """
    backend_for(pipeline)
    kind = type(pipeline).__name__
    for name, part in vars(pipeline).items():
        if getattr(part, "is_cache_enabled", False):
            raise UnsupportedPipelineError(
                f"cannot make a sibling of this {kind}: caching is enabled on its {name}, which "
                "keeps what one call has computed, and two runs would get each other's; call "
                f"disable_cache() on it, or load a second {kind}"
            )
    other = copy.copy(pipeline)
    made: dict[int, Any] = {}
    for name, part in vars(pipeline).items():
        if part is None:
            continue
        if _OWN.search(name):
            setattr(other, name, _copied(kind, name, part))
        elif (own := separate(part, made)) is not part:
            vars(other)[name] = own
    return other


def _copied(kind: str, name: str, part: Any) -> Any:
    try:
        return copy.deepcopy(part)
    except Exception as error:
        raise UnsupportedPipelineError(
            f"cannot make a sibling of this {kind}: its {name}, a {type(part).__name__}, cannot be "
            f"copied ({type(error).__name__}: {error})"
        ) from error
