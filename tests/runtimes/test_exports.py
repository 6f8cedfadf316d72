"""Exports and settings other than the usual: exact, or refused for what they lack."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runtime import FOLDER, NAME, NEAR, PROMPTS, STEPS, Array, apart, rows_of, run

from exported_shapes import export, load
from unicb import (
    CFGCutoff,
    GuidanceInterval,
    GuidanceSchedule,
    Interrupt,
    Preview,
    PromptSchedule,
    UnsupportedPipelineError,
    bind,
    sibling,
    stream,
)


@pytest.fixture(scope="module")
def pipe() -> Any:
    return load(NAME, FOLDER)


# ------------------------------------------------------------------------------ one number of rows


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A pipeline whose UNet takes two rows and no other number."""
    if NAME == "openvino":
        made = load(NAME, FOLDER)
        made.reshape(batch_size=1, height=64, width=64, num_images_per_prompt=1)
        return made
    folder = tmp_path_factory.mktemp("static")
    export(NAME, folder, no_dynamic_axes=True)
    return load(NAME, folder)


#: What fills two rows: ONNX Runtime's text encoder takes two texts, and no other number either.
TWO_ROWS: dict[str, Any] = {
    "onnx": {"prompt": PROMPTS, "guidance_scale": 1.0},
    "openvino": {"prompt": PROMPTS[0]},
}[NAME]


def test_a_static_batch_is_refused(static: Any) -> None:
    for callback in (
        CFGCutoff(0.5),
        GuidanceInterval(0.2, 0.8),
        GuidanceSchedule([(0.0, 5.0), (0.5, 1.0)]),
    ):
        with pytest.raises(UnsupportedPipelineError, match=r"unet .*batch of 2.*dynamic batch"):
            bind(static, callback)


def test_a_static_batch_does_what_needs_no_other(static: Any, pipe: Any) -> None:
    frames: list[Any] = []
    with rows_of(static) as rows:
        found = run(bind(static, Preview(frames.append), Interrupt(3)), **TWO_ROWS)
    assert rows == [2] * 4
    assert len(frames) == 4
    assert apart(found, run(bind(pipe, Interrupt(3)), **TWO_ROWS)) < NEAR


def test_a_static_batch_after_bind(static: Any) -> None:
    pipe = load(NAME, FOLDER)
    binding = bind(pipe, CFGCutoff(0.5))
    if NAME == "openvino":
        pipe.reshape(batch_size=1, height=64, width=64, num_images_per_prompt=1)
    else:
        pipe.unet = static.unet
    with pytest.raises(UnsupportedPipelineError, match="batch of 2"):
        run(binding, PROMPTS[0])


# ------------------------------------------------------------------------------ without a tokenizer


@pytest.fixture
def untokenized(tmp_path: Path) -> Any:
    """The export, but for its tokenizer."""
    folder = tmp_path / "exported"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("tokenizer"))
    index = folder / "model_index.json"
    written = json.loads(index.read_text(encoding="utf-8"))
    written["tokenizer"] = [None, None]
    index.write_text(json.dumps(written), encoding="utf-8")
    return load(NAME, folder)


def test_an_export_without_its_tokenizer(untokenized: Any, pipe: Any) -> None:
    """Texts and schedules of them are refused with the reason; embeddings do."""
    assert untokenized.tokenizer is None
    binding = bind(untokenized, CFGCutoff(0.4))
    with pytest.raises(UnsupportedPipelineError, match="without a tokenizer"):
        run(binding)
    with pytest.raises(UnsupportedPipelineError, match="without a tokenizer"):
        next(iter(stream(untokenized, PROMPTS[0])))
    with pytest.raises(UnsupportedPipelineError, match="without a tokenizer"):
        bind(untokenized, PromptSchedule([(0.5, PROMPTS[1])]))
    embeds, negative = pipe.encode_prompt(PROMPTS, "cpu", 1, True)
    given = {"prompt_embeds": embeds, "negative_prompt_embeds": negative}
    with rows_of(untokenized) as rows:
        found = run(binding, None, **given)
    assert rows == [4, 4, 4, 2, 2, 2]
    assert np.array_equal(found, run(bind(pipe, CFGCutoff(0.4))))


# ------------------------------------------------------------------------------ other settings

#: ONNX Runtime writes its answer into the tensor that it was asked with; OpenVINO computes in the
#: precision that it prefers on this processor, which may be bfloat16.
SETTINGS: dict[str, Any] = {"onnx": {"use_io_binding": True}, "openvino": {"ov_config": {}}}[NAME]


@pytest.mark.parametrize("callback", [CFGCutoff(0.4), GuidanceInterval(0.3, 0.7)])
def test_other_settings(callback: Any) -> None:
    """What is left out is what would not have counted: next to computing both halves and
    overwriting the unconditional one."""
    pipe = load(NAME, FOLDER, **SETTINGS)
    with rows_of(pipe) as rows:
        cut = run(bind(pipe, callback))
    guided = [count == 4 for count in rows]
    assert sum(rows) < 4 * STEPS

    def halved(call: int, answer: Array) -> Array:
        return answer if guided[call] else np.concatenate([answer[2:]] * 2)

    with rows_of(pipe, halved) as all_rows:
        expected = run(pipe)
    assert all_rows == [4] * STEPS
    assert apart(cut, expected) < 1e-5
    assert apart(run(pipe), expected) > 0.01


def test_siblings_with_other_settings() -> None:
    """In two threads at the same time, each has the bits that it has alone."""
    pipe = load(NAME, FOLDER, **SETTINGS)
    callbacks = [CFGCutoff(0.4), GuidanceInterval(0.3, 0.7)]
    alone = [run(bind(pipe, callback)) for callback in callbacks]
    found: dict[int, Array] = {}

    def generate(number: int, other: Any) -> None:
        found[number] = run(bind(other, callbacks[number]))

    threads = [threading.Thread(target=generate, args=(n, sibling(pipe))) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [np.array_equal(found.get(n, 0), right) for n, right in enumerate(alone)] == [True] * 2
