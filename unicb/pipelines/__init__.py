"""Tell what a pipeline is: facts about classes of pipelines, and what their own code says."""

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
