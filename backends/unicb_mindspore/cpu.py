"""Make mindone's pipelines run on a CPU.

Stock mindone 0.5.0 does not run on a CPU: many functions of `mindspore.mint` have a kernel for
Ascend only, and the first `mint.arange` or `mint.nn.Conv2d` of a pipeline raises RuntimeError.
`enable_cpu` asks each of the functions in `KERNELS` for a tiny result and replaces those that
cannot give one; `disable_cpu` puts the framework's own back.

    from unicb_mindspore import enable_cpu

    enable_cpu()
    pipe = StableDiffusionPipeline.from_pretrained(...)

Tested on MindSpore 2.7.0 CPU with mindone 0.5.0, in PYNATIVE mode, float32 and float16. MindSpore
has no bfloat16 matrix product on a CPU, and its GRAPH mode lacks further kernels; this module
changes neither. Nothing was run on an Ascend device; there `enable_cpu` does nothing.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, mint

from unicb_mindspore import _kernels as creation
from unicb_mindspore import _kernels_attention as attention
from unicb_mindspore import _kernels_math as math
from unicb_mindspore import _kernels_nn as layers
from unicb_mindspore import _kernels_pool as pooling
from unicb_mindspore import _kernels_scatter as scattering

__all__ = ["KERNELS", "Kernel", "disable_cpu", "enable_cpu"]

F = mint.nn.functional

ATTENTION = "mindone.diffusers.models.layers_compat"
ATTENTION_LAYER = "mindone.diffusers.models.attention_processor.Attention"
FLASH = "mindspore.ops.operations.nn_ops"

# Modules that may hold a replaced function under a name of their own, imported or assigned.
_HOLDERS = ("mindspore.mint", "mindone")


@dataclass(frozen=True)
class Kernel:
    """A kernel is a function that may be missing on a CPU, with what to put in its place.

    Attributes:
        owner: dotted path of the module or class that holds the function.
        attribute: the function's name there.
        probe: a tiny call of the framework's own function, which raises where it is missing.
        replacement: the CPU version, with the same signature.
    """

    owner: str
    attribute: str
    probe: Callable[[], Any]
    replacement: Any

    @property
    def name(self) -> str:
        """Return the name of the kernel as `enable_cpu` reports it, such as "mint.arange"."""
        return f"{self.owner}.{self.attribute}".removeprefix("mindspore.")

    def resolve_owner(self) -> Any:
        """Import and return the module or class that holds the function."""
        return pkgutil.resolve_name(self.owner)


@dataclass(frozen=True)
class _Patch:
    """A patch is one replaced attribute. `own` is False if the owner had inherited the original."""

    kernel: Kernel
    owner: Any
    original: Any
    own: bool

    def undo(self) -> None:
        if self.own:
            setattr(self.owner, self.kernel.attribute, self.original)
        else:
            delattr(self.owner, self.kernel.attribute)


_patches: list[_Patch] = []


def enable_cpu() -> tuple[str, ...]:
    """Replace what mindone needs and this CPU lacks; return the names of what was replaced.

    Every kernel of `KERNELS` is probed, and one that works is left alone, so a MindSpore that has
    grown a kernel keeps its own. A second call changes nothing and returns the same names. On a
    device target other than "CPU" nothing is probed or changed, and the result is empty. Choose the
    device (`mindspore.set_device`) before calling this.

    Also replaced are references that modules of `mindspore.mint` and mindone imported under names
    of their own. Call it before building a pipeline: an object that already stored a function in
    one of its attributes keeps that one.

    `mindspore.runtime.launch_blocking()` is called as well. Measured on two cores, MindSpore 2.7.0
    takes a pipeline's step 7 to 10 times faster with it (2.8.0: 18 times), and an error surfaces at
    the call that made it instead of at a later, innocent line.
    """
    if _patches or ms.get_context("device_target") != "CPU":
        return _replaced()
    ms.runtime.launch_blocking()
    for kernel in _missing():
        _patches.append(_replace(kernel))
    _rebind({id(old): new for old, new in _functions()})
    return _replaced()


def disable_cpu() -> None:
    """Put every replaced function back, also in modules that were imported since; idempotent.

    `launch_blocking()` cannot be undone, and stays in force until the process ends. An object that
    has stored a replacement in one of its attributes keeps it.
    """
    _rebind({id(new): old for old, new in _functions()})
    while _patches:
        _patches.pop().undo()


def _replaced() -> tuple[str, ...]:
    return tuple(patch.kernel.name for patch in _patches)


def _functions() -> list[tuple[Any, Any]]:
    """List pairs of the old and the new function, for functions of modules; methods are not
    imported by name."""
    found = [patch for patch in _patches if isinstance(patch.owner, ModuleType)]
    return [(patch.original, patch.kernel.replacement) for patch in found]


def _available() -> Iterator[Kernel]:
    """Yield the kernels whose owner this MindSpore, and an installed mindone, have."""
    for kernel in KERNELS:
        package = kernel.owner.partition(".")[0]
        if find_spec(package) is not None and hasattr(kernel.resolve_owner(), kernel.attribute):
            yield kernel


def _missing() -> list[Kernel]:
    """Probe every kernel, and return those that fail; numpy's global random state, from which new
    layers draw, is kept."""
    state = np.random.get_state()
    try:
        return [kernel for kernel in _available() if not _works(kernel.probe)]
    finally:
        np.random.set_state(state)


def _works(probe: Callable[[], Any]) -> bool:
    """Run a probe to its end; a missing kernel raises at the call or when the value is fetched."""
    try:
        _fetch(probe())
    except Exception:
        return False
    return True


def _fetch(result: Any) -> None:
    if isinstance(result, Tensor):
        result.asnumpy()
    elif isinstance(result, tuple | list):
        for part in result:
            _fetch(part)


def _replace(kernel: Kernel) -> _Patch:
    owner = kernel.resolve_owner()
    original = getattr(owner, kernel.attribute)
    own = kernel.attribute in vars(owner)
    setattr(owner, kernel.attribute, kernel.replacement)
    return _Patch(kernel, owner, original, own)


def _rebind(new: dict[int, Any]) -> None:
    """Exchange functions, given by their ids, in the modules that may have imported them."""
    for module in _holders():
        # vars() rather than getattr: mindone's lazy modules import on attribute access.
        for name, value in list(vars(module).items()):
            if id(value) in new:
                setattr(module, name, new[id(value)])


def _holders() -> list[ModuleType]:
    return [
        module
        for name, module in list(sys.modules.items())
        if isinstance(module, ModuleType)
        and any(name == root or name.startswith(f"{root}.") for root in _HOLDERS)
    ]


def _floats(*shape: int) -> Tensor:
    return Tensor(np.linspace(0.0, 1.0, int(np.prod(shape)), dtype=np.float32).reshape(shape))


def _indices() -> Tensor:
    return Tensor(np.array([1, 0]), ms.int64)


def _layer(make: Callable[[], Any], *shape: int) -> Callable[[], Any]:
    return lambda: make()(_floats(*shape))


def _repeat_in_every_overload() -> Any:
    # MindSpore 2.7 has a CPU kernel only for the call without `output_size`.
    x = _floats(2)
    return x.repeat_interleave(2, dim=0), x.repeat_interleave(2, dim=0, output_size=4)


def _attend_by_flash() -> Any:
    flash = pkgutil.resolve_name(f"{FLASH}:FlashAttentionScore")
    part = _floats(1, 1, 2, 4).astype(ms.float16)
    return flash(head_num=1, input_layout="BNSD")(part, part, part, None, None, None, None)[3]


def _attend_by_function() -> Any:
    part = _floats(1, 1, 2, 4).astype(ms.float16)
    return ms.ops.flash_attention_score(part, part, part, 1, input_layout="BNSD")


def _scatter_in_every_overload() -> Any:
    rows, index = _floats(2), _indices()
    source = rows.scatter_(0, index, _floats(2)), rows.scatter_(0, index, rows, reduce="add")
    return *source, rows.scatter_(0, index, 1.0), rows.scatter_(0, index, 1.0, reduce="add")


def _attend_by_mindone() -> Any:
    attend = importlib.import_module(ATTENTION).scaled_dot_product_attention
    return attend(*[_floats(1, 1, 2, 4)] * 3)


def _attend_by_layer() -> Any:
    layer = pkgutil.resolve_name(ATTENTION_LAYER)(8, heads=2, dim_head=4)
    part, mask = _floats(1, 2, 2, 4), Tensor(np.ones((2, 2, 2, 2), bool))[:1]
    return layer.scaled_dot_product_attention(part, part, part, mask)


def _find(attribute: str) -> Any:
    modules = (creation, math, scattering)
    return next(getattr(module, attribute) for module in modules if hasattr(module, attribute))


def _mint(attribute: str, probe: Callable[[], Any]) -> Kernel:
    return Kernel("mindspore.mint", attribute, probe, _find(attribute))


def _functional(attribute: str, probe: Callable[[], Any]) -> Kernel:
    module = layers if hasattr(layers, attribute) else pooling
    return Kernel("mindspore.mint.nn.functional", attribute, probe, getattr(module, attribute))


def _construct(layer: str, probe: Callable[[], Any], replacement: Any) -> Kernel:
    return Kernel(f"mindspore.mint.nn.{layer}", "construct", probe, replacement)


def _method(attribute: str, probe: Callable[[], Any], replacement: Any = None) -> Kernel:
    return Kernel("mindspore.Tensor", attribute, probe, replacement or _find(attribute))


KERNELS: tuple[Kernel, ...] = (
    _mint("arange", lambda: mint.arange(3)),
    _mint("linspace", lambda: mint.linspace(0, 1, 3)),
    _mint("full", lambda: mint.full((2,), 1.0)),
    _mint("full_like", lambda: mint.full_like(_floats(2), 1.0)),
    _mint("zeros_like", lambda: mint.zeros_like(_floats(2))),
    _mint("ones_like", lambda: mint.ones_like(_floats(2))),
    _mint("empty", lambda: mint.empty((2,))),
    _mint("empty_like", lambda: mint.empty_like(_floats(2))),
    _mint("clone", lambda: mint.clone(_floats(2))),
    _mint("randn", lambda: mint.randn(2)),
    _mint("randn_like", lambda: mint.randn_like(_floats(2))),
    _mint("rand", lambda: mint.rand(2)),
    _mint("rand_like", lambda: mint.rand_like(_floats(2))),
    _mint("normal", lambda: mint.normal(0.0, 1.0, (2,))),
    _mint("randint", lambda: mint.randint(0, 5, (2,))),
    _mint("multinomial", lambda: mint.multinomial(_floats(2), 1)),
    _mint("stack", lambda: mint.stack([_floats(2), _floats(2)])),
    _mint("narrow", lambda: mint.narrow(_floats(2), 0, 0, 1)),
    _mint("split", lambda: (mint.split(_floats(4), 2), mint.split(_floats(4), [1, 3]))),
    _mint("unbind", lambda: mint.unbind(_floats(2, 2))),
    _mint("flatten", lambda: mint.flatten(_floats(2, 2))),
    _mint("repeat_interleave", lambda: mint.repeat_interleave(_floats(2), 2, dim=0)),
    _mint("index_select", lambda: mint.index_select(_floats(2), 0, _indices())),
    _mint("roll", lambda: mint.roll(_floats(2), 1, 0)),
    _mint("tril", lambda: mint.tril(_floats(2, 2))),
    _mint("nonzero", lambda: mint.nonzero(_floats(2), as_tuple=True)),
    _mint("sort", lambda: mint.sort(_floats(2))),
    _mint("argsort", lambda: mint.argsort(_floats(2))),
    _mint("topk", lambda: mint.topk(_floats(2), 1)),
    _mint("median", lambda: (mint.median(_floats(2)), mint.median(_floats(2), 0))),
    _mint("argmax", lambda: mint.argmax(_floats(2))),
    _mint("argmin", lambda: mint.argmin(_floats(2))),
    _mint("unique", lambda: mint.unique(_indices())),
    _mint("equal", lambda: mint.equal(_floats(2), _floats(2))),
    _mint("cumsum", lambda: mint.cumsum(_floats(2), 0)),
    _mint("diff", lambda: mint.diff(_floats(2))),
    _mint("var", lambda: mint.var(_floats(2))),
    _mint("std", lambda: mint.std(_floats(2))),
    _mint("norm", lambda: mint.norm(_floats(2))),
    Kernel(
        "mindspore.mint.linalg",
        "vector_norm",
        lambda: mint.linalg.vector_norm(_floats(2)),
        math.vector_norm,
    ),
    _mint("atan2", lambda: mint.atan2(_floats(2), _floats(2))),
    _mint("mul", lambda: (mint.mul(_floats(2), _floats(2)), mint.mul(_floats(2), 2.0))),
    _mint("einsum", lambda: mint.einsum("i,i->", _floats(2), _floats(2))),
    _mint("outer", lambda: mint.outer(_floats(2), _floats(2))),
    _mint("mm", lambda: mint.mm(_floats(2, 2), _floats(2, 2))),
    _mint("addmm", lambda: mint.addmm(*[_floats(2, 2)] * 3)),
    _mint("baddbmm", lambda: mint.baddbmm(*[_floats(1, 2, 2)] * 3)),
    _functional("gelu", lambda: F.gelu(_floats(2))),
    _functional("softplus", lambda: F.softplus(_floats(2))),
    _functional("dropout", lambda: F.dropout(_floats(2), 0.5)),
    _functional("layer_norm", lambda: F.layer_norm(_floats(2), (2,))),
    _functional("embedding", lambda: F.embedding(_indices(), _floats(2, 2))),
    _functional("pad", lambda: F.pad(_floats(2), (1, 1))),
    _functional("interpolate", lambda: F.interpolate(_floats(1, 1, 2, 2), (3, 3), mode="bilinear")),
    _functional("conv1d", lambda: F.conv1d(_floats(1, 1, 3), _floats(1, 1, 2))),
    _functional("conv2d", lambda: F.conv2d(_floats(1, 1, 3, 3), _floats(1, 1, 2, 2))),
    _functional("conv3d", lambda: F.conv3d(_floats(1, 1, 3, 3, 3), _floats(1, 1, 2, 2, 2))),
    _functional(
        "conv_transpose2d", lambda: F.conv_transpose2d(_floats(1, 1, 2, 2), _floats(1, 1, 2, 2))
    ),
    _functional("avg_pool2d", lambda: F.avg_pool2d(_floats(1, 1, 2, 2), 2)),
    _functional("avg_pool3d", lambda: F.avg_pool3d(_floats(1, 1, 2, 2, 2), 2)),
    _functional("adaptive_avg_pool2d", lambda: F.adaptive_avg_pool2d(_floats(1, 1, 2, 2), 1)),
    _functional("batch_norm", lambda: F.batch_norm(_floats(2, 1), _floats(1), _floats(1))),
    _construct("Conv1d", _layer(lambda: mint.nn.Conv1d(1, 1, 2), 1, 1, 3), layers.construct_conv1d),
    _construct(
        "Conv2d", _layer(lambda: mint.nn.Conv2d(1, 1, 2), 1, 1, 3, 3), layers.construct_conv2d
    ),
    _construct(
        "Conv3d",
        _layer(lambda: mint.nn.Conv3d(1, 1, 2), 1, 1, 3, 3, 3),
        layers.construct_conv3d,
    ),
    _construct("LayerNorm", _layer(lambda: mint.nn.LayerNorm(2), 2), layers.construct_layer_norm),
    _construct(
        "Embedding", lambda: mint.nn.Embedding(2, 2)(_indices()), layers.construct_embedding
    ),
    _construct(
        "AvgPool2d", _layer(lambda: mint.nn.AvgPool2d(2), 1, 1, 2, 2), pooling.construct_avg_pool2d
    ),
    _construct("GELU", _layer(lambda: mint.nn.GELU(), 2), layers.construct_gelu),
    _method("clone", lambda: _floats(2).clone()),
    _method("repeat", lambda: _floats(2).repeat(2)),
    _method("repeat_interleave", _repeat_in_every_overload),
    _method("roll", lambda: _floats(2).roll(1, 0)),
    _method("masked_fill_", lambda: _floats(2).masked_fill_(_floats(2) > 0, 1.0)),
    _method("zero_", lambda: _floats(2).zero_()),
    _method("std", lambda: _floats(2, 2).std(dim=[0, 1], keepdim=True), math.method_std),
    _method("var", lambda: _floats(2, 2).var(dim=[0, 1], keepdim=True), math.method_var),
    _method("clamp_", lambda: _floats(2).clamp_(0.0, 0.5)),
    _method("normal_", lambda: _floats(2).normal_()),
    _method("uniform", lambda: _floats(2).uniform()),
    _method("uniform_", lambda: _floats(2).uniform_()),
    _method("nonzero", lambda: _floats(2).nonzero(as_tuple=True)),
    _method("scatter_", _scatter_in_every_overload),
    _method("scatter_add_", lambda: _floats(2).scatter_add_(0, _indices(), _floats(2))),
    Kernel(FLASH, "FlashAttentionScore", _attend_by_flash, attention.FlashAttentionScore),
    Kernel(
        "mindspore.ops",
        "flash_attention_score",
        _attend_by_function,
        attention.flash_attention_score,
    ),
    Kernel(
        ATTENTION,
        "scaled_dot_product_attention",
        _attend_by_mindone,
        attention.scaled_dot_product_attention,
    ),
    Kernel(
        ATTENTION_LAYER,
        "scaled_dot_product_attention",
        _attend_by_layer,
        attention.attend_in_layer,
    ),
)
