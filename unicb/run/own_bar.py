"""Hide the pipeline's own progress bar while a callback shows one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from unicb.pipelines.target import Target
from unicb.run.holds import Hold, Owner, hold

#: Attribute of diffusers' pipelines and loop blocks with their arguments for tqdm.
_CONFIG = "_progress_bar_config"


def hide_bar(target: Target, owner: Owner) -> Callable[[], None]:
    """Hide the pipeline's progress bar in the owner's calls; return a function that shows it again,
    which is idempotent."""
    hidden = [_Hidden(one, owner) for one in _with_bars(target)]

    def release() -> None:
        while hidden:
            hidden.pop().release()

    return release


def _with_bars(target: Target) -> Iterator[Any]:
    """Yield the objects that show a bar: the pipeline, or a modular pipeline's loop blocks."""
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
                config = self._made = {}  # as the pipeline does when it shows its first bar
                setattr(obj, _CONFIG, config)
            self._hold = hold(obj, _CONFIG, {**config, "disable": True}, owner)
        except (AttributeError, TypeError):
            pass  # another kind of object: two bars are no reason to refuse a run

    def release(self) -> None:
        if self._hold is not None:
            self._hold.release()
        if self._made is not None and vars(self._obj).get(_CONFIG) is self._made:
            del vars(self._obj)[_CONFIG]
