"""Serve as the reference backend: strict tensors on numpy, with a toy pipeline. It is the one to
copy."""

from unicb_numpy.backend import NumpyBackend

backend = NumpyBackend()

__all__ = ["NumpyBackend", "backend"]
