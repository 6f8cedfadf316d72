"""What a run holds on a model that is called in threads, saved, or compiled."""

from __future__ import annotations

import io
import threading
from typing import Any

import pytest
import torch
from held import Run, held
from test_composes_compile import with_ip_adapter
from torch._dynamo.utils import counters

from unicb.testing.tiny import IMAGE_WIDTH, TEXT_WIDTH
from unicb_torch.harness import harness


def call(unet: Any) -> Any:
    """One call of the UNet, of its adapter's scale."""
    with torch.no_grad():
        seeded = torch.Generator().manual_seed(0)
        sample = torch.randn(2, 4, 8, 8, generator=seeded)
        text = torch.randn(2, 3, TEXT_WIDTH, generator=seeded)
        image = torch.randn(2, 1, IMAGE_WIDTH, generator=seeded)
        conditions = {"image_embeds": [image]}
        return unet(sample, torch.tensor(10), text, added_cond_kwargs=conditions).sample


def of_scales(pipe: Any, *scales: float) -> dict[float, Any]:
    made = {}
    for scale in scales:
        pipe.set_ip_adapter_scale(scale)
        made[scale] = call(pipe.unet)
    return made


def test_models_called_in_threads() -> None:
    """Two runs and a plain caller on one UNet at once, each with the bits that it has alone."""
    pipe = harness.build("ip-adapter")
    expected = of_scales(pipe, 0.3, 0.7, 1.0)
    wrong: list[float] = []
    start = threading.Barrier(3)

    def work(scale: float) -> None:
        run = Run()
        start.wait()
        for _ in range(10):
            if scale == 1.0:
                found = call(pipe.unet)
            else:
                with held(pipe, run, scale), run.calls():
                    found = call(pipe.unet)
            if not torch.equal(found, expected[scale]):
                wrong.append(scale)

    threads = [threading.Thread(target=work, args=(scale,)) for scale in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_saved() -> None:
    """A model that is saved whole is plain."""
    pipe = harness.build("ip-adapter")
    expected = of_scales(pipe, 1.0)[1.0]
    run, file = Run(), io.BytesIO()
    with held(pipe, run, 0.3), run.calls():
        torch.save(pipe.unet, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert torch.equal(call(loaded), expected)
    kinds = [type(one) for one in pipe.unet.attn_processors.values()]
    assert [type(one) for one in loaded.attn_processors.values()] == kinds


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("before", [True, False])
def test_compiled(before: bool) -> None:
    """A graph that may be broken is right for each caller, also one compiled ``before`` the hold.
    It is broken where a scale is read; once everything is let go, the whole graph is used."""
    pipe = with_ip_adapter()
    expected = of_scales(pipe, 0.3, 1.0)
    compiled = torch.compile(pipe.unet, backend="eager")

    def right(scale: float) -> bool:
        return bool((call(compiled) - expected[scale]).abs().max() < 1e-5)

    if before:
        assert right(1.0)
    assert not counters["graph_break"]
    run = Run()
    for _ in range(2):
        with held(pipe, run, 0.3):
            for _ in range(2):
                assert right(1.0)
                with run.calls():
                    assert right(0.3)
        graphs = counters["stats"]["unique_graphs"]
        assert right(1.0)
    assert counters["stats"]["unique_graphs"] == graphs
    assert "torch.compiler.disable" in " ".join(counters["graph_break"])


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("before", [True, False])
def test_compiled_as_one_graph(before: bool) -> None:
    """That cannot ask who is calling: it says so, and is as before once everything is let go."""
    pipe = with_ip_adapter()
    expected = of_scales(pipe, 1.0)[1.0]
    compiled = torch.compile(pipe.unet, backend="eager", fullgraph=True)
    if before:
        call(compiled)
    run = Run()
    with held(pipe, run, 0.3):
        for _ in range(2):
            with pytest.raises(Exception, match=r"torch\.compiler\.disable"):
                call(compiled)
            with run.calls(), pytest.raises(Exception, match=r"torch\.compiler\.disable"):
                call(compiled)
    assert (call(compiled) - expected).abs().max() < 1e-5
