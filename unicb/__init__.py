"""Write diffusion pipeline callbacks once, and run them on PyTorch and on MindSpore."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unicb.asynchronous import run_async
    from unicb.backend import Backend
    from unicb.binding import Binding, bind
    from unicb.callback import Callback
    from unicb.callbacks import (
        AdaptiveProjectedGuidance,
        CFGCutoff,
        ClassifierFreeZeroStarGuidance,
        GuidanceInterval,
        GuidanceRescale,
        GuidanceRule,
        GuidanceSchedule,
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
        TangentialClassifierFreeGuidance,
        Trajectory,
        load_trajectory,
    )
    from unicb.errors import (
        BackendLoadError,
        BackendNotFoundError,
        GenerationCancelled,
        LatentsNotFiniteError,
        PipelineBusyError,
        RankError,
        UnicbError,
        UnsupportedPipelineError,
    )
    from unicb.explanation import Explanation, explain
    from unicb.guidance.rule_step import RuleStep
    from unicb.latents import LatentFormat, fit_rgb_factors
    from unicb.latents.initial import initial_latents
    from unicb.ops import TensorOps
    from unicb.pipelines import PipelineFacts
    from unicb.pipelines.by_hand import Loop
    from unicb.pipelines.target import Target
    from unicb.report import Report
    from unicb.run.run import Run
    from unicb.sibling import sibling
    from unicb.step import Step
    from unicb.streaming import Result, Stream, stream
else:
    from unicb._lazy import lazy

    __getattr__, __dir__ = lazy(
        __name__,
        {
            "unicb.asynchronous": ("run_async",),
            "unicb.backend": ("Backend",),
            "unicb.binding": ("Binding", "bind"),
            "unicb.callback": ("Callback",),
            "unicb.callbacks": (
                "AdaptiveProjectedGuidance",
                "CFGCutoff",
                "ClassifierFreeZeroStarGuidance",
                "GuidanceInterval",
                "GuidanceRescale",
                "GuidanceRule",
                "GuidanceSchedule",
                "Interrupt",
                "IPAdapterCutoff",
                "IPAdapterScale",
                "LatentCorrection",
                "NaNGuard",
                "Preview",
                "PreviewFrame",
                "Progress",
                "PromptSchedule",
                "PromptWeights",
                "StepTimer",
                "TangentialClassifierFreeGuidance",
                "Trajectory",
                "load_trajectory",
            ),
            "unicb.errors": (
                "BackendLoadError",
                "BackendNotFoundError",
                "GenerationCancelled",
                "LatentsNotFiniteError",
                "PipelineBusyError",
                "RankError",
                "UnicbError",
                "UnsupportedPipelineError",
            ),
            "unicb.explanation": ("Explanation", "explain"),
            "unicb.guidance.rule_step": ("RuleStep",),
            "unicb.latents": ("LatentFormat", "fit_rgb_factors"),
            "unicb.latents.initial": ("initial_latents",),
            "unicb.ops": ("TensorOps",),
            "unicb.pipelines": ("PipelineFacts",),
            "unicb.pipelines.by_hand": ("Loop",),
            "unicb.pipelines.target": ("Target",),
            "unicb.report": ("Report",),
            "unicb.run.run": ("Run",),
            "unicb.sibling": ("sibling",),
            "unicb.step": ("Step",),
            "unicb.streaming": ("Result", "Stream", "stream"),
            "unicb.sinks": (),
        },
    )

__version__ = "0.2.0"

__all__ = [
    "AdaptiveProjectedGuidance",
    "Backend",
    "BackendLoadError",
    "BackendNotFoundError",
    "Binding",
    "CFGCutoff",
    "Callback",
    "ClassifierFreeZeroStarGuidance",
    "Explanation",
    "GenerationCancelled",
    "GuidanceInterval",
    "GuidanceRescale",
    "GuidanceRule",
    "GuidanceSchedule",
    "IPAdapterCutoff",
    "IPAdapterScale",
    "Interrupt",
    "LatentCorrection",
    "LatentFormat",
    "LatentsNotFiniteError",
    "Loop",
    "NaNGuard",
    "PipelineBusyError",
    "PipelineFacts",
    "Preview",
    "PreviewFrame",
    "Progress",
    "PromptSchedule",
    "PromptWeights",
    "RankError",
    "Report",
    "Result",
    "RuleStep",
    "Run",
    "Step",
    "StepTimer",
    "Stream",
    "TangentialClassifierFreeGuidance",
    "Target",
    "TensorOps",
    "Trajectory",
    "UnicbError",
    "UnsupportedPipelineError",
    "__version__",
    "bind",
    "explain",
    "fit_rgb_factors",
    "initial_latents",
    "load_trajectory",
    "run_async",
    "sibling",
    "stream",
]
