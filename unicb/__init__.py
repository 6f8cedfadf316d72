"""Diffusion pipeline callbacks, written once, for PyTorch and for MindSpore."""

from unicb.asynchronous import run_async
from unicb.backend import Backend
from unicb.binding import Binding, bind
from unicb.callback import Callback
from unicb.callbacks import (
    CFGCutoff,
    Interrupt,
    IPAdapterCutoff,
    IPAdapterScale,
    LatentCorrection,
    NaNGuard,
    Preview,
    PreviewFrame,
    Progress,
    PromptSchedule,
    PromptWeights,
    StepTimer,
    Trajectory,
    load_trajectory,
)
from unicb.errors import (
    BackendLoadError,
    BackendNotFoundError,
    GenerationCancelled,
    LatentsNotFiniteError,
    UnicbError,
    UnsupportedPipelineError,
)
from unicb.latents import LatentFormat, fit_rgb_factors
from unicb.latents.initial import initial_latents
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
    "IPAdapterCutoff",
    "IPAdapterScale",
    "Interrupt",
    "LatentCorrection",
    "LatentFormat",
    "LatentsNotFiniteError",
    "NaNGuard",
    "PipelineFacts",
    "Preview",
    "PreviewFrame",
    "Progress",
    "PromptSchedule",
    "PromptWeights",
    "Result",
    "Step",
    "StepTimer",
    "Stream",
    "TensorOps",
    "Trajectory",
    "UnicbError",
    "UnsupportedPipelineError",
    "__version__",
    "bind",
    "fit_rgb_factors",
    "initial_latents",
    "load_trajectory",
    "run_async",
    "stream",
]
