"""IPAdapterScale and IPAdapterCutoff on the frameworks' pipelines."""

from __future__ import annotations

import ip_adapter_runs as runs
import pytest
import ways
from here import NAME, harness, on

from unicb import UnsupportedPipelineError, bind
from unicb.callbacks.ip_adapter import IPAdapterCutoff, IPAdapterScale

SD = "StableDiffusionPipeline (IP-Adapter)"
#: For MindSpore, of each way to keep a scale, one; the other classes are like them, and take their
#: time.
SOME = (SD, "StableDiffusionPipeline (two IP-Adapters)", "FluxPipeline (ip-adapter)")
TITLES = on(torch=(*runs.TITLES,), mindspore=SOME)


@pytest.mark.parametrize("title", TITLES)
def test_cutoff(title: str) -> None:
    runs.check(NAME, title, briefly=on(torch=False, mindspore=title != SD))


@pytest.mark.parametrize("title", TITLES)
def test_schedule(title: str) -> None:
    runs.check_schedule(NAME, title)


@pytest.mark.parametrize("title", on(torch=TITLES, mindspore=(SD,)))
def test_company(title: str) -> None:
    runs.check_company(NAME, title)


@pytest.mark.parametrize("kind", ["text2img", "xl-text2img"])
def test_no_adapter(kind: str) -> None:
    with pytest.raises(UnsupportedPipelineError, match=r"call its load_ip_adapter\(\) first"):
        bind(harness.build(kind), IPAdapterCutoff(0.4))


def test_unknown_block() -> None:
    with pytest.raises(ValueError, match=r"'up\.block_7'; .*: down\.block_1, mid, up\.block_0$"):
        bind(ways.pipeline(NAME, SD), IPAdapterScale({"up": {"block_7": 1.0}}))
