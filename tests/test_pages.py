"""The Python blocks of the project's pages run, and print what the pages say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from modular_toy import ModularToy
from page_blocks import blocks, pages, run

import unicb
from unicb_numpy.pipelines import ToyPipeline

ROOT = Path(__file__).parents[1]


def of_decoders(pipe: Any) -> dict[str, Any]:
    """Stand-ins of what the page has from elsewhere."""
    tiny = SimpleNamespace(from_pretrained=lambda name: lambda latents: latents)
    return {"Preview": unicb.Preview, "AutoencoderTiny": tiny, "my_decoder": lambda x: x}


def of_modular(pipe: Any) -> dict[str, Any]:
    class Loaded(ModularToy):
        def load_components(self) -> None: ...

    made = SimpleNamespace(init_pipeline=Loaded)
    return {"blocks": made, **{n: getattr(unicb, n) for n in ("bind", "CFGCutoff", "Preview")}}


#: Pages whose blocks run here, on the reference backend, with ``pipe``, and what else they need.
HERE: dict[str, Callable[[Any], dict[str, Any]] | None] = {
    **dict.fromkeys(
        f"docs/{name}.md"
        for name in (
            *("stopping", "migrating", "callbacks", "guidance_rules", "install", "your_own"),
            "troubleshooting",
        )
    ),
    **dict.fromkeys(
        f"docs/callbacks/{name}.md"
        for name in (
            *("cfg_cutoff", "guidance_interval", "guidance_schedule", "guidance_rule", "preview"),
            *("interrupt", "prompt_schedule", "prompt_weights", "correction"),
            *("trajectory", "nan_guard", "timing"),
        )
    ),
    "docs/decoders.md": of_decoders,
    "docs/denoised.md": lambda pipe: {"Callback": unicb.Callback},
    "docs/modular.md": of_modular,
    "docs/callbacks/prompts.md": lambda pipe: {"compel": lambda text: pipe.encode_prompt([text])},
}
#: Where the blocks of the other pages are run.
ELSEWHERE = {
    "README.md": "tests/backends/shared/test_examples.py",
    "docs/index.md": "tests/backends/shared/test_examples.py",
    "docs/first_run.md": "tests/backends/shared/test_examples.py",
    "docs/without_callback.md": "tests/backends/unicb_torch/test_pages.py",
    "examples/shapes/README.md": "tests/backends/unicb_torch/test_pages.py",
    "docs/previews.md": "tests/test_sinks.py",
    "docs/explain.md": "tests/test_explain_page.py",
    "docs/notebook.md": "tests/test_notebook.py",
    "docs/serving.md": "tests/service",
    "docs/recipes.md": "tests/test_recipes.py",
    "docs/latents.md": "tests/test_fit.py",
    "docs/porting.md": "tests/porting/test_porting_page.py",
    "docs/callbacks/guidance.md": "tests/test_guidance_page.py",
    "docs/callbacks/ip_adapter.md": "tests/test_ip_adapter_page.py",
    "examples/third_party_backend/README.md": "examples/third_party_backend/tests",
}


@pytest.fixture
def names(pipe: ToyPipeline, request: pytest.FixtureRequest) -> dict[str, Any]:
    more = HERE[request.getfixturevalue("page")]
    return {"pipe": pipe, **(more(pipe) if more else {})}


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize("page", HERE)
def test_blocks_run_and_print_what_the_page_says(
    page: str, names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(ROOT / page, names) > 0


def test_the_blocks_of_every_page_are_run_somewhere() -> None:
    """A page whose blocks nobody runs goes into HERE, or where its framework is."""
    translated = {page for page in pages() if page.endswith(".zh.md")}  # has the English code
    assert {*pages()} - translated - {*HERE} - {*ELSEWHERE} == set()
    assert all((ROOT / test).exists() for page, test in ELSEWHERE.items() if page in pages())


def test_serving_in_an_event_loop(pipe: ToyPipeline, tmp_path: Path) -> None:
    """The rest of that page is tested in tests/service and tests/ray, which have the packages."""
    text, fast_api, _ = (ROOT / "docs/serving.md").read_text("utf-8").partition("\n## FastAPI\n")
    assert fast_api
    assert run(write(tmp_path, text), {"pipe": pipe}) > 1


def write(folder: Path, text: str) -> Path:
    page = folder / "page.md"
    page.write_text(text, encoding="utf-8")
    return page


def test_what_is_printed_is_compared(tmp_path: Path) -> None:
    page = write(tmp_path, "```python\nprint(1)\n```\n\n```text\n2\n```\n")
    with pytest.raises(AssertionError, match="printed '1"):
        run(page, {})
    with pytest.raises(AssertionError, match="does not say"):
        run(write(tmp_path, "```python\nprint(1)\n```\n"), {})


def test_tabs_are_run_one_at_a_time(tmp_path: Path) -> None:
    one, other = (
        '=== "{}"\n\n    ```python\n    x = {}\n    ```\n\n'.format(*t) for t in ["A1", "B2"]
    )
    page = write(tmp_path, one + other + "```python\nprint(x)\n```\n\n```\n2\n```\n")
    assert run(page, {}, tab="B") == 2
    assert [block.tab for block in blocks(page)] == ["A", "B", "", ""]
    with pytest.raises(AssertionError):
        run(page, {}, tab="A")
