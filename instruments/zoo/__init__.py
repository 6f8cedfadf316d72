"""Tiny random-weight pipelines of every class with a step-end callback, from local parts alone."""
