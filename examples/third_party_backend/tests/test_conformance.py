"""The conformance suite in this distribution's own pytest run: the other way in is

python -m unicb.testing jax
"""

from __future__ import annotations

from unicb.testing import BackendSuite

from unicb_jax.harness import harness


class TestJax(BackendSuite):
    harness = harness
