"""The pipeline's own progress bar, which is not shown beside a callback's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from unicb.pipelines.target import Target
from unicb.run.holds import Hold, Owner, hold

#: In which diffusers' pipelines and loop blocks have what they hand on to tqdm.
_CONFIG = "_progress_bar_config"


def hide_bar(target: Target, owner: Owner) -> Callable[[], None]:
    """Have the pipeline show no progress bar in the owner's calls; returns what ends that.
    Idempotent."""
    hidden = [_Hidden(one, owner) for one in _with_bars(target)]

    def release() -> None:
        while hidden:
            hidden.pop().release()

    return release


def _with_bars(target: Target) -> Iterator[Any]:
    """Yield what shows a bar: the pipeline; of a modular one, its loop blocks."""
    loops = () if target.modular is None else target.modular.loops
    for one in (target.pipeline, *loops):
        if callable(getattr(one, "progress_bar", None)):
            yield one


class _Hidden:
    def __init__(self, obj: Any, owner: Owner) -> None:
        self._obj = obj
        self._made: dict[str, Any] | None = None
        self._hold: Hold | None = None
        config = getattr(obj, _CONFIG, None)
        try:
            if config is None:
                config = self._made = {}  # as it does itself when it shows the first
                setattr(obj, _CONFIG, config)
            self._hold = hold(obj, _CONFIG, {**config, "disable": True}, owner)
        except (AttributeError, TypeError):
            pass  # of another kind: two bars are no reason to refuse a run

    def release(self) -> None:
        if self._hold is not None:
            self._hold.release()
        if self._made is not None and vars(self._obj).get(_CONFIG) is self._made:
            del vars(self._obj)[_CONFIG]
