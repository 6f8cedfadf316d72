"""Check every backend by the same conformance suite. Needs ``unicb[testing]``.

``python -m unicb.testing NAME`` runs it on an installed backend.
"""

import sys
from typing import TYPE_CHECKING, Any

try:
    import hypothesis  # noqa: F401
    import pytest
except ImportError as error:
    raise ImportError(
        "unicb.testing needs pytest and hypothesis: pip install 'unicb[testing]'"
    ) from error

from unicb.testing.harness import Case, Harness, load_harness

if TYPE_CHECKING:
    from unicb.testing.suite import BackendSuite

__all__ = ["BackendSuite", "Case", "Harness", "load_harness"]

_CHECKS = (
    "_arithmetic",
    "_base",
    "_binding",
    "_callbacks",
    "_cleanup",
    "_guidance",
    "_interrupt",
    "_loops",
    "_modular",
    "_ops",
    "_ownership",
    "_parts",
    "_preview",
    "_registry",
    "_report",
    "_schedules",
    "_services",
    "_tensors",
)


def __getattr__(name: str) -> Any:
    # Imported late, after pytest has started, so that it can rewrite the checks' assertions.
    if name != "BackendSuite":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    modules = [f"{__name__}.{module}" for module in _CHECKS]
    pytest.register_assert_rewrite(*(name for name in modules if name not in sys.modules))
    from unicb.testing.suite import BackendSuite

    return BackendSuite
