"""Diffusion pipeline callbacks, written once, for PyTorch and for MindSpore."""

from unicb.asynchronous import run_async
from unicb.backend import Backend
from unicb.binding import Binding, bind
from unicb.callback import Callback
from unicb.callbacks import CFGCutoff, Interrupt, Preview, PreviewFrame
from unicb.errors import (
    BackendLoadError,
    BackendNotFoundError,
    GenerationCancelled,
    UnicbError,
    UnsupportedPipelineError,
)
from unicb.latents import LatentFormat, fit_rgb_factors
from unicb.ops import TensorOps
from unicb.pipelines import PipelineFacts
from unicb.step import Step
from unicb.streaming import Result, Stream, stream

__version__ = "0.1.0"

__all__ = [
    "Backend",
    "BackendLoadError",
    "BackendNotFoundError",
    "Binding",
    "CFGCutoff",
    "Callback",
    "GenerationCancelled",
    "Interrupt",
    "LatentFormat",
    "PipelineFacts",
    "Preview",
    "PreviewFrame",
    "Result",
    "Step",
    "Stream",
    "TensorOps",
    "UnicbError",
    "UnsupportedPipelineError",
    "__version__",
    "bind",
    "fit_rgb_factors",
    "run_async",
    "stream",
]
