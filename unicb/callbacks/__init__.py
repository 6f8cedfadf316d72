"""The callbacks that come with unicb, one concern a file."""

from unicb.callbacks.cfg_cutoff import CFGCutoff
from unicb.callbacks.interrupt import Interrupt
from unicb.callbacks.preview import Preview
from unicb.sinks import PreviewFrame

__all__ = ["CFGCutoff", "Interrupt", "Preview", "PreviewFrame"]
