"""Registry: the backend is found by its name and by its pipelines, and by nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from unicb import BackendNotFoundError, TensorOps
from unicb.backend import backend_for, backend_names, get_backend
from unicb.testing._base import Checks


class RegistryChecks(Checks):
    def test_backend_is_found_by_its_name(self) -> None:
        """The entry point's name is the backend's own, and leads to this very object."""
        backend = self.harness.backend
        assert backend.name in backend_names()
        assert get_backend(backend.name) is backend

    def test_backend_is_found_from_pipeline(self, kind: str) -> None:
        """``bind`` finds this backend, and no other, from the pipeline's class and from classes
        derived from it."""
        pipeline = self.pipeline(kind)
        assert backend_for(pipeline) is self.harness.backend
        derived: Any = type("Derived", (type(pipeline),), {})
        assert self.harness.backend.owns(derived.__new__(derived)) is True

    @pytest.mark.parametrize("thing", ["a string", None, 3, object(), ["list"]])
    def test_backend_claims_no_foreign_object(self, thing: Any) -> None:
        """An object that is no pipeline of the framework is not owned, nor taken for a tensor."""
        assert self.harness.backend.owns(thing) is False
        assert self.harness.backend.is_tensor(thing) is False
        with pytest.raises(BackendNotFoundError):
            backend_for(thing)

    def test_backend_knows_its_tensors(self, dtype: str) -> None:
        """The framework's tensors are tensors, whatever their dtype; the host's arrays are not."""
        array = np.ones((2, 3), dtype=np.float32)
        assert self.harness.backend.is_tensor(self.harness.tensor(array, dtype)) is True
        assert self.harness.backend.is_tensor(array) is False

    def test_backend_tells_what_it_stands_on(self) -> None:
        """Versions for reports, an instruction to install, and all seven operations."""
        backend = self.harness.backend
        assert backend.versions()
        assert all(isinstance(text, str) for pair in backend.versions().items() for text in pair)
        assert backend.install
        operations = [name for name in vars(TensorOps) if not name.startswith("_")]
        assert len(operations) == 7
        assert all(callable(getattr(backend.ops, name)) for name in operations)
