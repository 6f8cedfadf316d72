"""Cut guidance with perturbed attention (PAG), whose attention processors count the blocks of rows.

A pipeline with PAG replaces some of its denoiser's attention processors by ones for a batch with or
without an unconditional block. When that block is left out, these have to be exchanged.
"""

from __future__ import annotations

import inspect
from typing import Any

from unicb.guidance._models import Models


class PerturbedAttention:
    """Exchange the processors by the pipeline's own method, and put the old ones back."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._denoiser: Any = None
        self._before: dict[str, Any] = {}
        self._ours: dict[str, Any] = {}

    def without_unconditional(self) -> None:
        """Prepare the denoiser for batches of the conditional and the perturbed block only."""
        if self._before:
            return
        pipeline = self._models.pipeline
        self._denoiser = self._models.denoiser()
        self._before = dict(self._denoiser.attn_processors)
        pipeline._set_pag_attn_processor(
            pag_applied_layers=pipeline.pag_applied_layers, do_classifier_free_guidance=False
        )
        self._ours = dict(self._denoiser.attn_processors)
        for name, processor in self._ours.items():
            if processor is self._before.get(name):
                continue
            # The frameworks' attention passes this argument to every processor; one of mindone
            # 0.5.0's fails on it.
            parameters = inspect.signature(processor.__call__).parameters.values()
            if not any(p.name == "attention_mask" or p.kind is p.VAR_KEYWORD for p in parameters):
                self._models.mismatch(
                    f"its {type(processor).__name__} takes no attention_mask",
                    "perturbed attention needs it for two blocks of rows",
                )

    def remove(self) -> None:
        """Put the processors back, except those that the pipeline itself has put back, as it does
        at the end of its loop. Idempotent.
        """
        if not self._before:
            return
        found = self._denoiser.attn_processors
        kept = {name: now for name, now in found.items() if now is not self._ours.get(name)}
        self._denoiser.set_attn_processor({**found, **self._before, **kept})
        self._before.clear()
