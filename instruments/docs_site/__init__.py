"""Builds the documentation site and checks it: ``nox -s docs``."""
