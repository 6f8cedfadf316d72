"""Tries unicb as it is installed here, from a folder that has nothing of its sources.

installed_package.py base|torch|mindspore
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import sys
from contextlib import chdir
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = {"torch": "diffusers", "mindspore": "mindone.diffusers"}


def try_base() -> None:
    """Import all of unicb and its backends, where no framework is, and run the reference's toy."""
    for name in ("torch", "mindspore", "diffusers", "mindone", "transformers", "pytest"):
        assert find_spec(name) is None, f"{name} is installed: this is no clean environment"
    import unicb

    for module in pkgutil.walk_packages(unicb.__path__, "unicb."):
        if not module.name.startswith("unicb.testing"):  # which needs pytest
            importlib.import_module(module.name)
    found = entry_points(group="unicb.backends")
    assert {*found.names} == {"numpy", "torch", "mindspore"}
    for entry in found:
        entry.load()
    from unicb_numpy.pipelines import ToyPipeline

    taken: list[int] = []
    unicb.bind(ToyPipeline(), unicb.Preview(lambda frame: taken.append(frame.step)))("a star")
    assert taken[-1] == 9


def try_readme(framework: str) -> None:
    """Run README's first example for the framework, as it stands, beside the clone's examples."""
    text = (ROOT / "README.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    block = next(block for block in blocks if f"from {LIBRARIES[framework]} " in block)
    Path("examples").symlink_to(ROOT / "examples")
    os.environ["HF_HUB_OFFLINE"] = "1"
    exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})
    from PIL import Image

    assert Image.open("star.png").size == (64, 64)
    previews = sorted(path.name for path in Path("steps").iterdir())
    assert previews[-1] == "049.png", previews


def main(what: str) -> None:
    """Try it, and say that it works."""
    import unicb

    assert ROOT not in Path(unicb.__file__).parents or "site-packages" in unicb.__file__
    with TemporaryDirectory() as folder, chdir(folder):
        try_base() if what == "base" else try_readme(what)
    print(f"unicb {unicb.__version__} works as it is installed: {what}")


if __name__ == "__main__":
    main(sys.argv[1])
