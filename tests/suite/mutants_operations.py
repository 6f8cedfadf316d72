"""Faults in a backend's tensors and operations."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import numpy as np
from mutation import after, instead, mutant, onto

from unicb.backend import at_once
from unicb_numpy import NumpyBackend
from unicb_numpy.ops import NumpyOps, StrictTensor


def _wrong_layout(ops: Any, x: StrictTensor) -> Any:
    memory = x.data if x.data.base is None else x.data.base
    flat = np.nan_to_num(memory.ravel()[: x.data.size], nan=0.0)
    return np.clip(flat, 0, 255).astype(np.uint8).reshape(x.shape)


def _uneven_parts(ops: Any, x: StrictTensor, n: int) -> Any:
    return tuple(StrictTensor(part) for part in np.array_split(x.data, max(n, 1)))


def _clamp_in_place(ops: Any, x: StrictTensor, low: float, high: float) -> StrictTensor:
    np.clip(x.data, low, high, out=x.data)
    return x


def _zero_nan_in_place(function: Any) -> Any:
    def broken(ops: Any, x: StrictTensor) -> Any:
        np.nan_to_num(x.data, copy=False, nan=0.0, posinf=math.inf, neginf=-math.inf)
        return function(ops, x)

    return broken


def _only_last_of_batch(ops: Any, a: StrictTensor, b: StrictTensor) -> StrictTensor:
    last = b.data.reshape(-1, *b.shape[-2:])[-1]
    shape = np.matmul(a.data, b.data).shape
    return StrictTensor(np.broadcast_to(a.data @ last, shape))


def _matmul_into_first(matmul: Any) -> Any:
    def broken(ops: Any, a: StrictTensor, b: StrictTensor) -> StrictTensor:
        product: StrictTensor = matmul(ops, a, b)
        if product.shape == a.shape:
            a.data[...] = product.data
        return product

    return broken


def _into_first(made: StrictTensor, backend: Any, x: StrictTensor, dtype: Any) -> StrictTensor:
    x.data = made.data
    return made


def _bare_chunk_error(chunk: Any) -> Any:
    def broken(ops: Any, x: StrictTensor, n: int) -> Any:
        try:
            return chunk(ops, x, n)
        except ValueError:
            raise ValueError("cannot chunk into equal parts") from None

    return broken


def _concat_as_torch_does(ops: Any, parts: Any) -> StrictTensor:
    """Parts of shape (0,) do not count."""
    kept = [part.data for part in parts if part.shape != (0,)] or [part.data for part in parts]
    try:
        return StrictTensor(np.concatenate(kept))
    except ValueError:
        shapes = ", ".join(str(part.shape) for part in parts)
        raise ValueError(f"cannot concat shapes {shapes}") from None


def _power_by_logarithm(self: StrictTensor, exponent: float) -> StrictTensor:
    with np.errstate(all="ignore"):
        logarithm = np.log(self.data.astype(np.float64))
        return StrictTensor(np.exp(logarithm * exponent).astype(self.dtype))


def _each_slice(key: Any, change: Any) -> Any:
    parts = key if isinstance(key, tuple) else (key,)
    changed = tuple(change(part) if isinstance(part, slice) else part for part in parts)
    return changed if isinstance(key, tuple) else changed[0]


def _without_steps(key: Any) -> Any:
    return _each_slice(key, lambda part: slice(part.start, part.stop))


def _from_the_start(key: Any) -> Any:
    return _each_slice(
        key, lambda part: part if part.step is None else slice(0, part.stop, part.step)
    )


def _rows(tensor: StrictTensor) -> int:
    return tensor.shape[0]


def _without_errors(self: Any, work: Any, tensors: Any) -> Any:
    try:
        return at_once(work, self.ops, tensors)
    except LookupError:
        return lambda: None


@contextmanager
def _quiet(self: Any) -> Iterator[None]:
    state = np.random.get_state()
    with suppress(LookupError):
        yield
    np.random.set_state(state)


OPERATIONS = (
    mutant(
        "from_numpy keeps the array's dtype",
        "weights for half-precision latents arrive in float32",
        "doors_round_trip",
        NumpyOps,
        "from_numpy",
        instead(lambda ops, a, like: StrictTensor(np.array(a))),
    ),
    mutant(
        "from_numpy by way of float16",
        "values lose precision on their way to the device",
        "doors_round_trip",
        NumpyOps,
        "from_numpy",
        instead(lambda ops, a, like: StrictTensor(a.astype(np.float16).astype(like.dtype))),
    ),
    mutant(
        "from_numpy flattens",
        "the tensor is made from the array's buffer alone",
        "doors_round_trip",
        NumpyOps,
        "from_numpy",
        onto(lambda data: data.ravel()),
    ),
    mutant(
        "from_numpy borrows the array's memory",
        "as torch.from_numpy does: who changes the array later changes the tensor",
        "doors_round_trip",
        NumpyOps,
        "from_numpy",
        instead(lambda ops, a, like: StrictTensor(np.asarray(a, dtype=like.dtype))),
    ),
    mutant(
        "from_numpy ignores strides",
        "it reads a reversed view forwards",
        "doors_round_trip",
        NumpyOps,
        "from_numpy",
        lambda from_numpy: (
            lambda ops, a, like: from_numpy(
                ops, (a if a.base is None else a.base).reshape(a.shape), like
            )
        ),
    ),
    mutant(
        "to_numpy lends its memory",
        "the host array is the tensor's own, as torch's Tensor.numpy gives it",
        "doors_round_trip",
        NumpyOps,
        "to_numpy",
        instead(lambda ops, x: x.data),
    ),
    mutant(
        "to_numpy always gives float32",
        "what bfloat16 needs is done to every dtype",
        "doors_round_trip",
        NumpyOps,
        "to_numpy",
        after(lambda host, *_: host.astype(np.float32)),
    ),
    mutant(
        "chunk gives a list",
        "the framework's own return type is passed on",
        "chunk",
        NumpyOps,
        "chunk",
        after(lambda parts, *_: list(parts)),
    ),
    mutant(
        "chunk interleaves",
        "part i has the rows i, i + n, …",
        "chunk documented_recipe",
        NumpyOps,
        "chunk",
        after(lambda parts, ops, x, n: tuple(x[i::n] for i in range(n))),
    ),
    mutant(
        "chunk drops the last part",
        "one part less than was asked for",
        "chunk",
        NumpyOps,
        "chunk",
        after(lambda parts, *_: parts[:-1] or parts),
    ),
    mutant(
        "chunk widens",
        "parts come in float64",
        "chunk",
        NumpyOps,
        "chunk",
        after(lambda parts, *_: tuple(StrictTensor(part.data.astype("f8")) for part in parts)),
    ),
    mutant(
        "chunk takes unequal parts",
        "as torch.chunk does",
        "chunk_refuses_unequal_parts",
        NumpyOps,
        "chunk",
        instead(_uneven_parts),
    ),
    mutant(
        "chunk's error names no shape",
        "the message leaves the reader guessing",
        "chunk_refuses_unequal_parts",
        NumpyOps,
        "chunk",
        _bare_chunk_error,
    ),
    mutant(
        "clamp forgets the upper limit",
        "only the lower one is passed on",
        "clamp",
        NumpyOps,
        "clamp",
        lambda clamp: lambda ops, x, low, high: clamp(ops, x, low, math.inf),
    ),
    mutant(
        "clamp swallows NaN",
        "a framework's minimum and maximum prefer numbers",
        "clamp",
        NumpyOps,
        "clamp",
        instead(lambda ops, x, low, high: StrictTensor(np.fmin(np.fmax(x.data, low), high))),
    ),
    mutant(
        "clamp widens",
        "limits as float64 arrays make the result float64",
        "clamp",
        NumpyOps,
        "clamp",
        onto(lambda data: data.astype(np.float64)),
    ),
    mutant(
        "to_uint8 rounds",
        "to the nearest instead of toward zero",
        "to_uint8",
        NumpyOps,
        "to_uint8",
        lambda to_uint8: lambda ops, x: to_uint8(ops, StrictTensor(np.round(x.data))),
    ),
    mutant(
        "to_uint8 wraps around",
        "a bare cast: 256 becomes 0",
        "to_uint8",
        NumpyOps,
        "to_uint8",
        instead(lambda ops, x: np.nan_to_num(x.data).astype(np.int64).astype(np.uint8)),
    ),
    mutant(
        "to_uint8 makes NaN white",
        "a clamp before the cast that takes NaN to its upper limit",
        "latents_that_are_not_finite_are_black",
        NumpyOps,
        "to_uint8",
        instead(lambda ops, x: np.clip(np.nan_to_num(x.data, nan=255), 0, 255).astype(np.uint8)),
    ),
    mutant(
        "to_uint8 ignores strides",
        "it reads a view's memory as if there were no gaps",
        "to_uint8",
        NumpyOps,
        "to_uint8",
        instead(_wrong_layout),
    ),
    mutant(
        "to_uint8 gives a tensor",
        "the result stays in the framework",
        "to_uint8",
        NumpyOps,
        "to_uint8",
        after(lambda out, *_: StrictTensor(out)),
    ),
    mutant(
        "to_uint8 gives int64",
        "the right numbers in eight times the space",
        "to_uint8",
        NumpyOps,
        "to_uint8",
        after(lambda out, *_: out.astype(np.int64)),
    ),
    mutant(
        "to_uint8 flattens",
        "the shape is lost",
        "to_uint8",
        NumpyOps,
        "to_uint8",
        after(lambda out, *_: out.ravel()),
    ),
    mutant(
        "matmul in half precision",
        "a device's fast mode, taken for every dtype",
        "matmul",
        NumpyOps,
        "matmul",
        instead(
            lambda ops, a, b: StrictTensor(
                (a.data.astype(np.float16) @ b.data.astype(np.float16)).astype(a.dtype)
            )
        ),
    ),
    mutant(
        "matmul widens",
        "the product of two float16 tensors is left in float32",
        "matmul",
        NumpyOps,
        "matmul",
        instead(lambda ops, a, b: StrictTensor(a.data.astype("f4") @ b.data.astype("f4"))),
    ),
    mutant(
        "matmul looks at one of a batch",
        "the batch is broadcast after the product, from its last matrix",
        "matmul preview_colours",
        NumpyOps,
        "matmul",
        instead(_only_last_of_batch),
    ),
    mutant(
        "matmul skips what is not finite",
        "a kernel that treats NaN as 0, so that bad latents look good",
        "latents_that_are_not_finite_are_black",
        NumpyOps,
        "matmul",
        onto(lambda data: np.nan_to_num(data)),
    ),
    mutant(
        "matmul into its first argument",
        "the result is written over what it was computed from",
        "verbs_leave_their_arguments_alone",
        NumpyOps,
        "matmul",
        _matmul_into_first,
    ),
    mutant(
        "clamp in place",
        "as torch's clamp_",
        "verbs_leave_their_arguments_alone",
        NumpyOps,
        "clamp",
        instead(_clamp_in_place),
    ),
    mutant(
        "to_uint8 cleans in place",
        "NaN is replaced in the tensor itself",
        "verbs_leave_their_arguments_alone",
        NumpyOps,
        "to_uint8",
        _zero_nan_in_place,
    ),
    mutant(
        "number minus tensor is tensor minus number",
        "the reflected operator is not reflected",
        "arithmetic_and_indexing",
        StrictTensor,
        "__rsub__",
        instead(lambda self, other: self - other),
    ),
    mutant(
        "number by tensor is tensor by number",
        "the same of division",
        "arithmetic_and_indexing",
        StrictTensor,
        "__rtruediv__",
        instead(lambda self, other: self / other),
    ),
    mutant(
        "numbers widen",
        "a tensor times a Python number is float64",
        "arithmetic_and_indexing",
        StrictTensor,
        "__mul__",
        onto(lambda data: data.astype(np.float64)),
    ),
    mutant(
        "reshape keeps the old shape",
        "the call is taken for a no-op",
        "arithmetic_and_indexing",
        StrictTensor,
        "reshape",
        instead(lambda self, shape: self),
        error=ValueError,
    ),
    mutant(
        "reshape goes down columns",
        "Fortran's order of elements",
        "arithmetic_and_indexing",
        StrictTensor,
        "reshape",
        instead(lambda self, shape: StrictTensor(self.data.reshape(shape, order="F"))),
    ),
    mutant(
        "steps of slices are dropped",
        "every row where every other one was asked for",
        "indexing",
        StrictTensor,
        "__getitem__",
        lambda getitem: lambda self, key: getitem(self, _without_steps(key)),
    ),
    mutant(
        "a slice with a step begins at 0",
        "rows 0, 2, 4 where 1, 3, 5 were asked for",
        "indexing",
        StrictTensor,
        "__getitem__",
        lambda getitem: lambda self, key: getitem(self, _from_the_start(key)),
    ),
    mutant(
        "indexing widens",
        "a part of a tensor is float64",
        "indexing",
        StrictTensor,
        "__getitem__",
        onto(lambda data: data.astype(np.float64)),
    ),
    mutant(
        "an integer keeps its axis",
        "x[1] is x[1:2]",
        "indexing",
        StrictTensor,
        "__getitem__",
        lambda getitem: (
            lambda self, key: getitem(
                self, slice(key, key + 1 or None) if type(key) is int else key
            )
        ),
    ),
    mutant(
        "power of a fraction is of its whole part",
        "exponents are taken for integers",
        "power",
        StrictTensor,
        "__pow__",
        lambda power: lambda self, exponent: power(self, int(exponent)),
    ),
    mutant(
        "power by logarithm",
        "as a device without a kernel for it: a negative number has no square",
        "power",
        StrictTensor,
        "__pow__",
        instead(_power_by_logarithm),
    ),
    mutant(
        "power widens",
        "a tensor to a Python number is float64",
        "power",
        StrictTensor,
        "__pow__",
        onto(lambda data: data.astype(np.float64)),
    ),
    mutant(
        "power in half precision",
        "a device's fast mode, taken for every dtype",
        "power",
        StrictTensor,
        "__pow__",
        lambda power: (
            lambda self, exponent: StrictTensor(
                power(StrictTensor(self.data.astype(np.float16)), exponent).data.astype(self.dtype)
            )
        ),
    ),
    mutant(
        "concat sorts",
        "the parts come in the order of their length",
        "concat",
        NumpyOps,
        "concat",
        instead(
            lambda ops, parts: StrictTensor(
                np.concatenate(sorted((part.data for part in parts), key=len))
            )
        ),
    ),
    mutant(
        "concat joins each part once",
        "parts are kept in a set of their ids",
        "concat",
        NumpyOps,
        "concat",
        lambda concat: (
            lambda ops, parts: concat(ops, list({id(part): part for part in parts}.values()))
        ),
    ),
    mutant(
        "concat of one part repeats it",
        "as if it were asked for both halves",
        "concat",
        NumpyOps,
        "concat",
        lambda concat: (
            lambda ops, parts: concat(ops, [*parts, *parts] if len(parts) == 1 else parts)
        ),
    ),
    mutant(
        "concat skips what has no rows and no columns",
        "as torch.cat does with a part of shape (0,)",
        "concat_refuses_what_does_not_fit",
        NumpyOps,
        "concat",
        instead(_concat_as_torch_does),
    ),
    mutant(
        "concat's error names no shapes",
        "the framework's own is passed on",
        "concat_refuses_what_does_not_fit",
        NumpyOps,
        "concat",
        instead(lambda ops, parts: StrictTensor(np.concatenate([part.data for part in parts]))),
    ),
    mutant(
        "concat takes the wider dtype",
        "as the frameworks' own promotion: half-precision latents come out in float32",
        "concat_refuses_another_dtype",
        NumpyOps,
        "concat",
        instead(lambda ops, parts: StrictTensor(np.concatenate([part.data for part in parts]))),
    ),
    mutant(
        "concat widens",
        "copies come in float64",
        "concat",
        NumpyOps,
        "concat",
        onto(lambda data: data.astype(np.float64)),
    ),
    mutant(
        "swapaxes does nothing",
        "a packed picture is unpacked with two pairs of axes exchanged",
        "arithmetic_and_indexing",
        StrictTensor,
        "swapaxes",
        instead(lambda self, axis1, axis2: self),
    ),
    mutant(
        "aside gives something else",
        "previews are black",
        "aside",
        NumpyBackend,
        "aside",
        instead(
            lambda self, work, tensors: lambda: [array * 0 for array in work(self.ops, *tensors)]
        ),
    ),
    mutant(
        "float32 is not to be had",
        "a rule computes in the model's dtype",
        "in_dtype",
        NumpyBackend,
        "in_dtype",
        instead(lambda self, x, dtype: x),
    ),
    mutant(
        "dtypes change in place",
        "the model's own output is rounded",
        "in_dtype",
        NumpyBackend,
        "in_dtype",
        after(_into_first),
    ),
    mutant(
        "aside takes the tensors in the wrong order",
        "the latents before and after a step are exchanged",
        "aside",
        NumpyBackend,
        "aside",
        instead(lambda self, work, tensors: at_once(work, self.ops, sorted(tensors, key=_rows))),
    ),
    mutant(
        "aside keeps errors to itself",
        "a preview that cannot be made is an empty one",
        "aside",
        NumpyBackend,
        "aside",
        instead(_without_errors),
    ),
    mutant(
        "fork_rng forgets the random numbers",
        "a decoder that draws changes the picture",
        "fork_rng",
        NumpyBackend,
        "fork_rng",
        instead(lambda self: nullcontext()),
    ),
    mutant(
        "fork_rng keeps errors to itself",
        "a decoder that fails is taken for one that returned",
        "fork_rng",
        NumpyBackend,
        "fork_rng",
        instead(_quiet),
    ),
)
