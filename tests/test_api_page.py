"""docs/api.md has every public name."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import unicb

PAGE = (Path(__file__).parents[1] / "docs" / "api.md").read_text("utf-8")
#: Public modules besides unicb itself.
MODULES = ("unicb.sinks", "unicb.latents", "unicb.tensors", "unicb.checks")


def test_page_has_every_public_name() -> None:
    listed = re.findall(r"^::: (\S+)$", PAGE, re.MULTILINE)
    assert len(listed) == len({*listed})
    named = {name.removeprefix("unicb.") for name in listed if name.count(".") == 1}
    assert named == {*unicb.__all__} - {"__version__"}
    for name in listed:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name
    for module in MODULES:
        assert any(name.startswith(f"{module}.") for name in listed)
