"""Bring unicb to torch tensors and diffusers pipelines. Importing this imports neither."""

from unicb_torch.backend import TorchBackend

backend = TorchBackend()

__all__ = ["TorchBackend", "backend"]
