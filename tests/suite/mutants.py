"""The mutants: each is the reference backend with one realistic fault, and what must notice it."""

from __future__ import annotations

from mutants_callbacks import CALLBACKS, MoreCallbacks
from mutants_core import CORE
from mutants_loops import LOOPS
from mutants_modular import MODULAR
from mutants_operations import OPERATIONS
from mutants_ownership import OWNERSHIP
from mutants_pipeline import PIPELINE
from mutants_report import REPORT
from mutants_schedules import SCHEDULES
from mutants_subtle import SUBTLE
from mutants_tensors import TENSORS
from mutation import MoreKinds, Mutant

#: What they are made from. Must pass everything.
REFERENCES = (
    Mutant("reference", "none", ()),
    Mutant("reference, more kinds", "none", (), harness=MoreKinds),
    Mutant("reference, more for callbacks", "none", (), harness=MoreCallbacks),
)

MUTANTS = (
    *(*OPERATIONS, *TENSORS, *PIPELINE, *CORE, *OWNERSHIP),
    *(*SUBTLE, *CALLBACKS, *SCHEDULES, *LOOPS, *MODULAR, *REPORT),
)
