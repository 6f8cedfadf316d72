"""Measure what ``bind`` takes, before a run.

    python benchmarks/bind_cost.py --framework torch

Binds callbacks to tiny pipelines of several classes, and writes
docs/benchmarks/bind_cost-<framework>.json. Takes a few seconds beside the framework's import.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from _common import figure, interleaved, parser, write
from _tiny import build, zoo_framework

from unicb import Callback, CFGCutoff, Preview, bind
from unicb.pipelines import facts_for, source

TITLE = "What `bind` takes"
METHOD = """\
`bind` with a `CFGCutoff` and a `Preview`, on tiny pipelines of the frameworks' classes; on one
without guidance (latent consistency) with the `Preview` alone. `bind` checks there all that can be
checked before a run.

- **in a new process**: unicb's data files and the installed backends are yet to be read. Its
  modules are imported.
- **a new class** of pipeline, in a process in which others were bound.
- **again**: the same pipeline once more.
"""
AT_MOST_MS = 5.0
CLASSES = {
    "torch": (
        "StableDiffusionPipeline",
        "StableDiffusionXLPipeline",
        "FluxPipeline",
        "WanPipeline",
        "LatentConsistencyModelPipeline",
    ),
    "mindspore": ("StableDiffusionPipeline",),
}


def forget_data() -> None:
    """Empty the caches that unicb's modules have, as they are in a new process."""
    for name, module in list(sys.modules.items()):
        if name.partition("_")[0].partition(".")[0] == "unicb":
            for value in list(vars(module).values()):
                if hasattr(value, "cache_clear"):
                    value.cache_clear()
    source._sources.clear()


def as_new_class(pipeline: Any) -> None:
    """Make the pipeline's class one that unicb has not seen, and that is as the one it was."""
    kind = type(pipeline)
    base = kind.__mro__[1] if vars(kind).get("is_copy") else kind
    pipeline.__class__ = type(base.__name__, (base,), {"is_copy": True})


def callbacks_for(pipeline: Any) -> list[Callback]:
    facts = facts_for(pipeline)
    guided = facts is not None and facts.cfg != "none"
    return [*([CFGCutoff(0.4)] if guided else []), Preview(lambda frame: None)]


def milliseconds(pipeline: Any, prepare: Callable[[], None]) -> float:
    callbacks = callbacks_for(pipeline)
    prepare()
    began = time.perf_counter()
    bind(pipeline, *callbacks)
    return (time.perf_counter() - began) * 1e3


def circumstances(pipeline: Any) -> Iterator[tuple[str, Callable[[], None]]]:
    def in_a_new_process() -> None:
        as_new_class(pipeline)
        forget_data()

    yield "in a new process", in_a_new_process
    yield "a new class", partial(as_new_class, pipeline)
    yield "again", lambda: None


def main() -> int:
    options = parser(__doc__).parse_args()
    # No pipeline is called here.
    warnings.filterwarnings("ignore", "<Binding of .* was never called", RuntimeWarning)
    fx = zoo_framework(options.framework)
    figures = []
    for name in CLASSES[options.framework]:
        pipeline = build(fx, name)
        timed = {
            case: partial(milliseconds, pipeline, prepare)
            for case, prepare in circumstances(pipeline)
        }
        rounds = interleaved(timed, options.repetitions, name)
        figures += [figure(case, name, "ms", values, AT_MOST_MS) for case, values in rounds.items()]
    settings = {"rounds": options.repetitions}
    write(options.out, "bind_cost", TITLE, METHOD, options.framework, settings, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
