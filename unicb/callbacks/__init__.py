"""The callbacks that come with unicb, one concern a file."""

from unicb.callbacks._schedules import cosine, linear
from unicb.callbacks._trajectory_files import RecordedLatents, load_trajectory
from unicb.callbacks.cfg_cutoff import CFGCutoff
from unicb.callbacks.correction import LatentCorrection
from unicb.callbacks.interrupt import Interrupt
from unicb.callbacks.ip_adapter import IPAdapterCutoff, IPAdapterScale
from unicb.callbacks.nan_guard import NaNGuard
from unicb.callbacks.preview import Preview
from unicb.callbacks.prompts import PromptSchedule, PromptWeights
from unicb.callbacks.timing import Progress, ProgressState, StepTimer, StepTimes
from unicb.callbacks.trajectory import Trajectory
from unicb.sinks import PreviewFrame

__all__ = [
    "CFGCutoff",
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
    "Trajectory",
    "cosine",
    "linear",
    "load_trajectory",
]
