"""Send previews to files, functions, or whatever else shows them.

A sink is called with each :class:`PreviewFrame` of a run, and closed when the run is over.
``Preview`` takes a sink, or whatever :func:`as_sink` turns into one: a path template, a function, a
list. This package handles pictures only: no framework, no pipeline, no callback.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unicb.sinks.animation import Animation
    from unicb.sinks.background import Background
    from unicb.sinks.files import FileSink
    from unicb.sinks.frame import PreviewFrame
    from unicb.sinks.notebook import Notebook
    from unicb.sinks.shape import (
        Batch,
        Size,
        check_batch,
        check_size,
        grid,
        shape_images,
        shape_videos,
    )
    from unicb.sinks.sheet import ContactSheet
    from unicb.sinks.sink import Sink, SinkLike, as_sink
    from unicb.sinks.throttle import Throttle
else:
    from unicb._lazy import lazy

    __getattr__, __dir__ = lazy(
        __name__,
        {
            "unicb.sinks.animation": ("Animation",),
            "unicb.sinks.background": ("Background",),
            "unicb.sinks.files": ("FileSink",),
            "unicb.sinks.frame": ("PreviewFrame",),
            "unicb.sinks.notebook": ("Notebook",),
            "unicb.sinks.shape": (
                "Batch",
                "Size",
                "check_batch",
                "check_size",
                "grid",
                "shape_images",
                "shape_videos",
            ),
            "unicb.sinks.sheet": ("ContactSheet",),
            "unicb.sinks.sink": ("Sink", "SinkLike", "as_sink"),
            "unicb.sinks.throttle": ("Throttle",),
        },
    )

__all__ = [
    "Animation",
    "Background",
    "Batch",
    "ContactSheet",
    "FileSink",
    "Notebook",
    "PreviewFrame",
    "Sink",
    "SinkLike",
    "Size",
    "Throttle",
    "as_sink",
    "check_batch",
    "check_size",
    "grid",
    "shape_images",
    "shape_videos",
]
