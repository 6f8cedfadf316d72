"""Read modular pipelines: which of their blocks are denoising loops, and what these declare.

A loop block calls its own ``loop_step`` in each step, with a state that the step changes.
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from unicb.errors import UnsupportedPipelineError
from unicb.pipelines._called import DENOISER
from unicb.pipelines._stepping import Unclear, below_wrappers, read_stepping
from unicb.pipelines._written import self_attribute
from unicb.pipelines.facts import PipelineFacts
from unicb.pipelines.scheduled import ScheduledLoop
from unicb.pipelines.source import CallSource

LOOP_STEP = "loop_step"
#: The argument of ``loop_step`` that counts the steps.
INDEX = "i"
_BLOCKS = ("_blocks", "blocks")
_ENCODER = re.compile(r"encoder$")
#: Names of tensors that a loop iterates over: changing them during the loop has no effect.
_SCHEDULE = ("timesteps", "sigmas")


@dataclass(frozen=True)
class ModularLoops:
    """``ModularLoops`` are the denoising loops of one modular pipeline.

    Attributes:
        blocks: all blocks of the pipeline, the outermost first.
        loops: the blocks that are denoising loops; a call's arguments decide which of them run.
        offered: names of the tensors in the loops' states.
        models: names of the models that the loops call, denoisers first.
        guiders: names of the guiders that the loops use.
        inner: if the loops go over parts, of a video for example: the loop over the steps of one
            part, in an inner block, whose steps its scheduler shows; else None.
    """

    blocks: tuple[Any, ...]
    loops: tuple[Any, ...]
    offered: tuple[str, ...]
    models: tuple[str, ...]
    guiders: tuple[str, ...]
    inner: ScheduledLoop | None = None

    def check_unchanged(self, pipeline: Any) -> None:
        """Raise UnsupportedPipelineError if the pipeline's blocks have changed since ``bind``."""
        found = tuple(_walk(blocks_of(pipeline)))
        if len(found) != len(self.blocks) or any(
            a is not b for a, b in zip(found, self.blocks, strict=True)
        ):
            raise UnsupportedPipelineError(
                f"the blocks of this {type(pipeline).__name__} were changed after bind(), which "
                "has checked the former ones: call bind() again"
            )

    def facts(self, pipeline: Any, known: PipelineFacts | None) -> PipelineFacts:
        """Return the facts about the pipeline.

        Args:
            known: facts about its class, for what its blocks do not say; or None.
        """
        known = known or PipelineFacts("its blocks", cfg="none", verify=True, layout="")
        guiders = tuple(name for name in self.guiders if getattr(pipeline, name, None) is not None)
        denoisers = known.denoisers or tuple(x for x in self.models if "controlnet" not in x)
        return replace(
            known,
            denoisers=denoisers,
            companions=tuple(name for name in self.models if name not in denoisers),
            cfg="guider" if guiders else known.cfg,
            why_none=known.why_none or "has no guider, and guides in no other way that is known",
            guided_by=guiders,
            verify=known.verify or not self._are_of(_package(type(pipeline))),
        )

    def _are_of(self, package: str) -> bool:
        """Return whether the loops and the blocks inside them are from ``package``, and not a
        user's own."""
        inside = [inner for loop in self.loops for inner in _walk(loop)]
        return all(_package(type(block)) == package for block in inside)


def blocks_of(pipeline: Any) -> Any:
    """Return the outermost block of a modular pipeline; None for any other pipeline."""
    attributes = getattr(pipeline, "__dict__", {})
    found = next((attributes[name] for name in _BLOCKS if name in attributes), None)
    return found if hasattr(found, "sub_blocks") else None


def modular_loops(pipeline: Any) -> ModularLoops | None:
    """Return the loops of a modular pipeline; None for any other pipeline.

    Raises:
        UnsupportedPipelineError: the ends of its steps cannot be noticed; the message says why.
    """
    outermost = blocks_of(pipeline)
    if outermost is None:
        return None
    blocks = tuple(_walk(outermost))
    loops = tuple(block for block in blocks if hasattr(type(block), LOOP_STEP))
    inner = _seen_loop(blocks, loops)
    if isinstance(inner, str):
        raise UnsupportedPipelineError(
            f"the ends of the steps of this {type(pipeline).__name__} cannot be noticed: {inner}"
        )
    named = dict.fromkeys(part.name for loop in loops for part in loop.expected_components)
    models = [name for name in named if DENOISER.search(name) and not _ENCODER.search(name)]
    companions = [name for name in named if "controlnet" in name and name not in models]
    guiders = tuple(name for name in named if "guider" in name)
    return ModularLoops(
        blocks, loops, _offered(loops, blocks), (*models, *companions), guiders, inner
    )


def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _seen_loop(blocks: Sequence[Any], loops: Sequence[Any]) -> ScheduledLoop | str | None:
    """Return the loop inside these loops that has the steps; None if these loops have the steps
    themselves; or a text that says why the steps cannot be noticed."""
    if not loops:
        return f"none of its blocks is a loop with a {LOOP_STEP}"
    others = dict.fromkeys(type(block) for block in blocks if block not in loops)
    sources = [CallSource.of(kind) for kind in others]
    unseen = [(source, why) for source in sources if (why := source.once(_why_unseen, source))]
    in_loops = [CallSource.of(type(loop)) for loop in loops]
    unclear = [why for source in in_loops if (why := source.once(_why_unclear, source))]
    if len(unclear) == len(loops) and len(unseen) == 1:
        # Each loop goes over parts, and the same inner block has the steps of one part.
        return unseen[0][0].once(_read_inner, unseen[0][0])
    return next(iter((*unclear, *(why for _, why in unseen))), None)


def _walk(block: Any) -> Iterator[Any]:
    yield block
    for inner in (getattr(block, "sub_blocks", None) or {}).values():
        yield from _walk(inner)


def _offered(loops: Sequence[Any], blocks: Sequence[Any]) -> tuple[str, ...]:
    """Return the names of the tensors in the loops' states: those that the loops declare, and those
    that other blocks make for them under the name of a group."""
    tensors = {x.name for block in blocks for x in _parameters(block) if _is_tensor(x)}
    groups = {x.kwargs_type for loop in loops for x in _parameters(loop) if not x.name}
    named = [x.name for loop in loops for x in _parameters(loop) if x.name]
    grouped = [
        x.name
        for block in blocks
        for x in _parameters(block)
        if x.name and x.kwargs_type in groups and x.kwargs_type
    ]
    names = dict.fromkeys((*named, *grouped))
    return tuple(name for name in names if name in tensors and name not in _SCHEDULE)


def _parameters(block: Any) -> Iterable[Any]:
    # Some releases list users' inputs and other blocks' outputs separately.
    made = getattr(block, "intermediate_inputs", ())
    return (*block.inputs, *made, *block.intermediate_outputs)


def _is_tensor(parameter: Any) -> bool:
    return bool(parameter.name) and "Tensor" in str(parameter.type_hint)


def _why_unclear(source: CallSource) -> str:
    """Return why the steps of a loop block cannot be noticed by its ``loop_step``; empty if they
    can."""
    name, tree = source.kind.__name__, source.written.tree
    if tree is None:
        return f"the code of its {name} cannot be read"
    found = [
        (loop, call)
        for loop in ast.walk(tree)
        if isinstance(loop, ast.For)
        for call in _own_calls(loop)
        if self_attribute(call.func) == LOOP_STEP
    ]
    if len(found) != 1:
        return f"its {name} calls {LOOP_STEP} in {len(found) or 'no'} places of a loop"
    loop, call = found[0]
    words = [word.arg for word in call.keywords]
    if INDEX not in words:
        said = ", ".join(str(word) for word in words) or "nothing"
        return f"its {name} goes over more than steps, of which it says {said} to {LOOP_STEP}"
    if changed := _changed_besides(loop):
        return f"its {name} changes {changed} otherwise than in {LOOP_STEP}"
    if not isinstance(below_wrappers(loop.iter), ast.Name | ast.Attribute | ast.Subscript):
        return f"how many rounds its {name} takes is not to be read off its code"
    return ""


def _why_unseen(source: CallSource) -> str:
    """Return why a block that is no loop block has steps that would go unnoticed; empty if it has
    no steps."""
    if source.code is None or "step" not in source.code.co_names:
        return ""
    tree = source.written.tree
    for loop in ast.walk(tree) if tree is not None else ():
        if isinstance(loop, ast.For | ast.While) and any(map(_is_scheduler_step, ast.walk(loop))):
            return f"its {source.kind.__name__} steps a scheduler in a loop of its own"
    return ""


def _read_inner(source: CallSource) -> ScheduledLoop | str:
    """Return the loop of a block that steps its scheduler in its own loop; or a text that says why
    the steps cannot be noticed."""
    name, tree = source.kind.__name__, source.written.tree
    function = tree.body[0] if tree is not None else None
    if not isinstance(function, ast.FunctionDef) or source.code is None:
        return f"the code of its {name} cannot be read"
    try:
        written = read_stepping(_of_pipeline(function))
    except Unclear as error:
        return f"its {name} steps a scheduler in a loop of its own, and {error}"
    if written.around is not None:  # its statements use names that the block does not have
        return f"its {name} steps a scheduler in a loop of its own, and changes latents besides"
    return ScheduledLoop(source.code, written, None)


def _of_pipeline(function: ast.FunctionDef) -> ast.FunctionDef:
    """Return a block's call rewritten as a pipeline's: its variable for the components is renamed
    ``self``."""
    block, components = (argument.arg for argument in function.args.args[:2])
    renamed = {components: "self", block: "_block"}
    made = copy.deepcopy(function)
    for node in ast.walk(made):
        if isinstance(node, ast.Name) and node.id in renamed:
            node.id = renamed[node.id]
    return made


def _own_calls(loop: ast.For) -> Iterator[ast.Call]:
    """Yield the calls in a loop that are not in a loop inside it."""
    left: list[ast.AST] = list(loop.body)
    while left:
        node = left.pop()
        if isinstance(node, ast.For | ast.While):
            continue
        if isinstance(node, ast.Call):
            yield node
        left.extend(ast.iter_child_nodes(node))


def _changed_besides(loop: ast.For) -> str:
    """Return the first assignment in a loop to an attribute other than the state's own; empty if
    there is none."""
    for node in ast.walk(loop):
        if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store):
            return ast.unparse(node)
    return ""


def _is_scheduler_step(node: ast.AST) -> bool:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return False
    return node.func.attr == "step" and "scheduler" in ast.unparse(node.func.value)
