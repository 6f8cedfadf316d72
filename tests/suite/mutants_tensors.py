"""Faults in what is made of the contract: unicb.tensors, and operations that it stands on."""

from __future__ import annotations

from typing import Any

import numpy as np
from mutation import edited, instead, mutant

from unicb import tensors
from unicb_numpy.ops import NumpyOps, StrictTensor


def _summed_in_its_dtype(ops: Any, a: StrictTensor, b: StrictTensor) -> StrictTensor:
    total = a.data[..., :1] * b.data[..., :1, :]
    for k in range(1, a.shape[-1]):
        total = total + a.data[..., k : k + 1] * b.data[..., k : k + 1, :]
    return StrictTensor(total)


def _product_as_it_is(ops: Any, a: Any, b: Any, kept: int = 1, average: bool = False) -> Any:
    count = int(np.prod(a.shape[kept:]))
    with np.errstate(all="ignore"):
        return tensors.mean(ops, a * b, kept) * (1.0 if average else float(count))


TENSORS = (
    mutant(
        "matmul adds up in half precision",
        "no wider accumulator: each of the terms rounds the sum",
        "mean",
        NumpyOps,
        "matmul",
        instead(_summed_in_its_dtype),
    ),
    mutant(
        "a mean is a sum",
        "it is not divided by the number of elements",
        "mean",
        tensors,
        "_mean",
        lambda mean: edited(mean, ("scale = 1.0 / flat.shape[1]", "scale = 1.0")),
    ),
    mutant(
        "zeros at the end count",
        "elements that fill up the last block are taken for the tensor's own",
        "mean",
        tensors,
        "_mean",
        lambda mean: edited(
            mean,
            ("scale = 1.0 / flat.shape[1]", "scale = 1.0"),
            ("scale /= weight", "scale /= weight * blocks.shape[1] * blocks.shape[2]"),
            ("flat.shape[1] == 1:", "blocks.shape[1] == 1:"),
        ),
    ),
    mutant(
        "a mean drops the axes that it combined",
        "it does not go with its tensor any more",
        "mean std_and_norm dot",
        tensors,
        "_combined",
        instead(lambda x, kept: tuple(x.shape[:kept])),
    ),
    mutant(
        "a deviation keeps the mean's rounding",
        "centred once, latents of a large mean deviate more than they do",
        "std_and_norm",
        tensors,
        "std",
        lambda std: edited(
            std, ("centred = centred - _mean(ops, centred)", "centred = centred * 1.0")
        ),
    ),
    mutant(
        "float16 is taken for a wide dtype",
        "squares overflow",
        "std_and_norm dot",
        tensors,
        "dtype_name",
        lambda name: lambda x: name(x).replace("float16", "float32"),
        error=KeyError,
    ),
    mutant(
        "blocks are as large as they come",
        "beside a whole row's mean, one element's square overflows",
        "std_and_norm",
        tensors,
        "_BLOCK",
        instead(1 << 20),  # type: ignore[arg-type]
    ),
    mutant(
        "a product is summed up as it is",
        "it overflows in float16 where the result would not",
        "dot",
        tensors,
        "dot",
        instead(_product_as_it_is),
    ),
    mutant(
        "an average is a sum",
        "the argument is taken, and forgotten",
        "dot",
        tensors,
        "dot",
        lambda dot: edited(dot, ("1.0 if average else math.sqrt(count)", "math.sqrt(count)")),
    ),
    mutant(
        "a blend goes from one end by the difference",
        "beside a large number the other end is off",
        "lerp",
        tensors,
        "lerp",
        instead(lambda a, b, weight: a + (b - a) * weight),
    ),
    mutant(
        "a blend's ends are exchanged",
        "0 is the second tensor",
        "lerp",
        tensors,
        "lerp",
        lambda lerp: lambda a, b, weight: lerp(b, a, weight),
    ),
)
