"""The reference backend: strict tensors on numpy, with a toy pipeline. The one to copy."""

from unicb_numpy.backend import NumpyBackend

backend = NumpyBackend()

__all__ = ["NumpyBackend", "backend"]
