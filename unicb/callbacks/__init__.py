"""Provide the callbacks that come with unicb, one concern per file."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unicb.callbacks._schedules import cosine, linear
    from unicb.callbacks._trajectory_files import RecordedLatents, load_trajectory
    from unicb.callbacks.cfg_cutoff import CFGCutoff
    from unicb.callbacks.correction import LatentCorrection
    from unicb.callbacks.guidance_interval import GuidanceInterval
    from unicb.callbacks.guidance_rule import GuidanceRule
    from unicb.callbacks.guidance_rules import (
        AdaptiveProjectedGuidance,
        ClassifierFreeZeroStarGuidance,
        GuidanceRescale,
        TangentialClassifierFreeGuidance,
    )
    from unicb.callbacks.guidance_schedule import GuidanceSchedule
    from unicb.callbacks.interrupt import Interrupt
    from unicb.callbacks.ip_adapter import IPAdapterCutoff, IPAdapterScale
    from unicb.callbacks.nan_guard import NaNGuard
    from unicb.callbacks.preview import Preview
    from unicb.callbacks.prompts import PromptSchedule, PromptWeights
    from unicb.callbacks.timing import Progress, ProgressState, StepTimer, StepTimes
    from unicb.callbacks.trajectory import Trajectory
    from unicb.sinks import PreviewFrame
else:
    from unicb._lazy import lazy

    __getattr__, __dir__ = lazy(
        __name__,
        {
            "unicb.callbacks._schedules": ("cosine", "linear"),
            "unicb.callbacks._trajectory_files": ("RecordedLatents", "load_trajectory"),
            "unicb.callbacks.cfg_cutoff": ("CFGCutoff",),
            "unicb.callbacks.correction": ("LatentCorrection",),
            "unicb.callbacks.guidance_interval": ("GuidanceInterval",),
            "unicb.callbacks.guidance_rule": ("GuidanceRule",),
            "unicb.callbacks.guidance_rules": (
                "AdaptiveProjectedGuidance",
                "ClassifierFreeZeroStarGuidance",
                "GuidanceRescale",
                "TangentialClassifierFreeGuidance",
            ),
            "unicb.callbacks.guidance_schedule": ("GuidanceSchedule",),
            "unicb.callbacks.interrupt": ("Interrupt",),
            "unicb.callbacks.ip_adapter": ("IPAdapterCutoff", "IPAdapterScale"),
            "unicb.callbacks.nan_guard": ("NaNGuard",),
            "unicb.callbacks.preview": ("Preview",),
            "unicb.callbacks.prompts": ("PromptSchedule", "PromptWeights"),
            "unicb.callbacks.timing": ("Progress", "ProgressState", "StepTimer", "StepTimes"),
            "unicb.callbacks.trajectory": ("Trajectory",),
            "unicb.sinks": ("PreviewFrame",),
        },
    )

__all__ = [
    "AdaptiveProjectedGuidance",
    "CFGCutoff",
    "ClassifierFreeZeroStarGuidance",
    "GuidanceInterval",
    "GuidanceRescale",
    "GuidanceRule",
    "GuidanceSchedule",
    "IPAdapterCutoff",
    "IPAdapterScale",
    "Interrupt",
    "LatentCorrection",
    "NaNGuard",
    "Preview",
    "PreviewFrame",
    "Progress",
    "ProgressState",
    "PromptSchedule",
    "PromptWeights",
    "RecordedLatents",
    "StepTimer",
    "StepTimes",
    "TangentialClassifierFreeGuidance",
    "Trajectory",
    "cosine",
    "linear",
    "load_trajectory",
]
