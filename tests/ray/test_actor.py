"""The actor of docs/serving.md."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n(import ray\n.*?)^```\n+```\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_actor_of_the_page() -> None:
    [(program, printed)] = BLOCK.findall((ROOT / "docs" / "serving.md").read_text("utf-8"))
    own = {"RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    begin = "import ray; ray.init(num_cpus=2, include_dashboard=False)\n"
    done = subprocess.run(
        [sys.executable, "-c", begin + program],
        **{"capture_output": True, "text": True, "timeout": 400, "cwd": ROOT},
        env={**os.environ, **own},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == printed
