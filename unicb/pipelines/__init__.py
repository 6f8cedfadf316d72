"""Describe pipelines: by facts about their classes, and by reading their code."""

from unicb.pipelines.facts import (
    Part,
    PipelineFacts,
    facts_for,
    facts_owner,
    known_pipelines,
    num_timesteps_of,
    usual_unbatched,
)

__all__ = [
    "Part",
    "PipelineFacts",
    "facts_for",
    "facts_owner",
    "known_pipelines",
    "num_timesteps_of",
    "usual_unbatched",
]
