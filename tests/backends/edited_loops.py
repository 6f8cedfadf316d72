"""Classes of the framework whose loop somebody has changed, under the name that it had."""

from __future__ import annotations

import inspect
import linecache
import re
import sys
import textwrap
from collections.abc import Sequence
from itertools import count
from typing import Any

from here import framework, on

_numbers = count()


def edited(kind: type, *changes: tuple[str, str]) -> type:
    """A class of the same name as ``kind``, with some of its loop's text replaced."""
    function: Any = inspect.unwrap(kind.__call__)  # type: ignore[operator]
    text = textwrap.dedent(inspect.getsource(function))
    for before, after in changes:
        text, found = re.subn(before, after, text)
        assert found, f"{kind.__name__} has no {before!r}"
    text = text[text.index("def __call__") :]
    file = f"<an edited loop, {next(_numbers)}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    namespace = dict(vars(sys.modules[function.__module__]))
    exec(compile(text, file, "exec"), namespace)
    call = namespace["__call__"]
    without_gradients = on(torch=lambda: framework.no_grad()(call), mindspore=lambda: call)()
    return type(kind.__name__, (kind,), {"__call__": without_gradients})


def with_loop(pipe: Any, *changes: tuple[str, str]) -> Any:
    """The pipeline, with such a loop."""
    pipe.__class__ = edited(type(pipe), *changes)
    return pipe


#: Stable Diffusion's conditional rows first.
BLOCKS_SWAPPED: Sequence[tuple[str, str]] = (
    (
        r"cat\(\[negative_prompt_embeds, prompt_embeds\]\)",
        "cat([prompt_embeds, negative_prompt_embeds])",
    ),
    (
        r"noise_pred_uncond, noise_pred_text = noise_pred",
        "noise_pred_text, noise_pred_uncond = noise_pred",
    ),
)
#: Stable Diffusion's scale read once, before the loop.
SCALE_IS_LOCAL: Sequence[tuple[str, str]] = (
    (r"self\.guidance_scale \* \(", "local_scale * ("),
    (r"(?m)^( *)(with self\.progress_bar\()", r"\1local_scale = self.guidance_scale\n\1\2"),
)
#: Flux' unconditional call first.
CALLS_SWAPPED: Sequence[tuple[str, str]] = (
    (
        r"neg_noise_pred \+ true_cfg_scale \* \(noise_pred - neg_noise_pred\)",
        "noise_pred + true_cfg_scale * (neg_noise_pred - noise_pred)",
    ),
    (
        r"(?m)^( *)(with self\.progress_bar\()",
        r"\1prompt_embeds, negative_prompt_embeds = negative_prompt_embeds, prompt_embeds\n"
        r"\1pooled_prompt_embeds, negative_pooled_prompt_embeds = ("
        r"negative_pooled_prompt_embeds, pooled_prompt_embeds)\n\1\2",
    ),
)
#: Wan's switch read once, before the loop.
SWITCH_IS_LOCAL: Sequence[tuple[str, str]] = (
    (r"(?m)^( {12,})if self\.do_classifier_free_guidance:", r"\1if local_switch:"),
    (
        r"(?m)^( *)(with self\.progress_bar\()",
        r"\1local_switch = self.do_classifier_free_guidance\n\1\2",
    ),
)
#: A formula of somebody's own in place of Stable Diffusion's.
ANOTHER_FORMULA: Sequence[tuple[str, str]] = (
    (r"self\.guidance_scale \* \(", "self.guidance_scale * abs("),
)
#: A line that does nothing: the same loop, and yet unknown.
THE_SAME: Sequence[tuple[str, str]] = (
    (r"(?m)^( *)(with self\.progress_bar\()", r"\1nothing = None\n\1\2"),
)
