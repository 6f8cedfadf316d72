"""IPAdapterScale and IPAdapterCutoff on mindone's pipelines."""

from __future__ import annotations

import ip_adapter_runs as runs
import pytest
import ways

from unicb import UnsupportedPipelineError, bind
from unicb.callbacks.ip_adapter import IPAdapterCutoff, IPAdapterScale

#: Of each way to keep a scale, one; the other classes are like them, and take their time.
TITLES = (
    "StableDiffusionPipeline (IP-Adapter)",
    "StableDiffusionPipeline (two IP-Adapters)",
    "FluxPipeline (ip-adapter)",
)


@pytest.mark.parametrize("title", TITLES)
def test_cutoff(title: str) -> None:
    runs.check("mindspore", title, briefly=title != TITLES[0])


@pytest.mark.parametrize("title", TITLES)
def test_schedule(title: str) -> None:
    runs.check_schedule("mindspore", title)


@pytest.mark.parametrize("title", [*TITLES][:1])
def test_company(title: str) -> None:
    runs.check_company("mindspore", title)


def test_no_adapter() -> None:
    pipe = ways.pipeline("mindspore", "StableDiffusionPipeline")
    with pytest.raises(UnsupportedPipelineError, match=r"call its load_ip_adapter\(\) first"):
        bind(pipe, IPAdapterCutoff(0.4))


def test_unknown_block() -> None:
    pipe = ways.pipeline("mindspore", "StableDiffusionPipeline (IP-Adapter)")
    with pytest.raises(ValueError, match=r"names the block 'up\.block_7'"):
        bind(pipe, IPAdapterScale({"up": {"block_7": 1.0}}))
