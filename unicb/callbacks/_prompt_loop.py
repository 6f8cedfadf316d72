"""Read how a class of pipeline encodes its prompts, and which embeddings its loop takes back.

Pipelines are written alike: ``prompt_embeds, ... = self.encode_prompt(prompt=prompt, ...)`` before
the loop, and ``prompt_embeds = callback_outputs.pop("prompt_embeds", prompt_embeds)`` in it. The
first shows how to encode another prompt as this call did; the second, which of the results can be
exchanged. The list in ``_callback_tensor_inputs`` does not show that: some loops take back less, or
go on with a tensor that they computed from the embeddings before.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from unicb.errors import UnsupportedPipelineError
from unicb.pipelines.source import CallSource

#: Where an argument of ``encode_prompt`` comes from: a local variable of the loop or an attribute
#: of the pipeline, each with its name; or a constant, with its value.
Source = tuple[Literal["local", "attribute", "value"], Any]

_OTHER_PROMPTS = re.compile(r"(negative_)?prompt(_\d+)?$")
_ENCODED = re.compile(r"embeds|mask$")
_PER_PROMPT = re.compile(r"num_\w+_per_prompt$")
#: Names of tensors of token positions, which are the same for all prompts of one length.
_POSITIONS = re.compile(r"_ids$")
#: Attributes of a tensor that do not depend on its numbers.
_OF_ITS_KIND = ("dtype", "device", "shape", "ndim")
#: Stable Diffusion XL's loops call the pooled embeddings by another name.
_ALIASES = {"pooled_prompt_embeds": "add_text_embeds"}


@dataclass(frozen=True)
class EncoderCall:
    """``EncoderCall`` describes one call of ``encode_prompt``.

    Attributes:
        results: the loop's names for the results; "" for a result that it drops.
        arguments: where the arguments other than prompts come from, by parameter name.
        prompts: where the prompts come from, by parameter name.
        main: name of the parameter that takes the first prompts.
        parameters: names of all parameters of ``encode_prompt``.
    """

    results: tuple[str, ...]
    arguments: Mapping[str, Source]
    prompts: Mapping[str, Source]
    main: str
    parameters: tuple[str, ...]

    def encode(
        self,
        pipeline: Any,
        values: Mapping[str, Any],
        prompts: Sequence[str],
        negative: Sequence[str] | None = None,
        others: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return what ``encode_prompt`` returns for these prompts, by the loop's names.

        Args:
            pipeline: the pipeline whose ``encode_prompt`` is called.
            values: the loop's local variables that :meth:`locals` names, by name.
            prompts: texts, one for each row.
            negative: negative prompts, one for each row; None: without guidance.
            others: further prompts that differ from ``prompts``, by name ("prompt_2",
                "negative_prompt_2").
        """
        given = {name: _value(source, pipeline, values) for name, source in self.arguments.items()}
        given |= {name: 1 for name in given if _PER_PROMPT.match(name)}
        if "do_classifier_free_guidance" in self.parameters:
            given["do_classifier_free_guidance"] = negative is not None
        if negative is not None:
            given["negative_prompt"] = list(negative)
        given |= dict(others or {})
        missing = [name for name in self.parameters if name in self.prompts and name not in given]
        given |= dict.fromkeys(missing)
        given[self.main] = list(prompts)
        returned = pipeline.encode_prompt(**given)
        parts = returned if isinstance(returned, tuple | list) else (returned,)
        if len(self.results) == 1:
            parts = (returned,)
        return {name: part for name, part in zip(self.results, parts, strict=False) if name}

    def locals(self) -> Iterator[str]:
        """Yield the names of the loop's local variables that :meth:`encode` needs."""
        for kind, name in (*self.arguments.values(), *self.prompts.values()):
            if kind == "local":
                yield name

    def original(self, pipeline: Any, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the prompts that the pipeline was called with, by the names of the parameters."""
        return {
            name: _value(source, pipeline, values)
            for name, source in self.prompts.items()
            if name == self.main or _OTHER_PROMPTS.match(name)
        }


def _value(source: Source, pipeline: Any, values: Mapping[str, Any]) -> Any:
    kind, what = source
    if kind == "local":
        return values.get(what)
    return getattr(pipeline, what) if kind == "attribute" else what


@dataclass(frozen=True)
class Slot:
    """A slot is a tensor of the loop that holds embeddings of the prompts.

    Attributes:
        name: the loop's name for the tensor, also in the dict that it takes back from callbacks.
        call: index of the call in :attr:`PromptLoop.calls` that makes the tensor.
        result: name of the result of that call.
    """

    name: str
    call: int
    result: str

    @property
    def negative(self) -> str:
        return f"negative_{self.result}"


@dataclass(frozen=True)
class PromptLoop:
    """Hold what the code of a pipeline's class shows about its prompts.

    Attributes:
        calls: the calls of ``encode_prompt``, except those for negative prompts only.
        slots: the embeddings that can be exchanged during the loop.
        taken: names of all tensors that the loop takes back from its callback and uses.
        kept: names of results of ``encode_prompt`` for the prompts that the loop does not take
            back.
    """

    calls: tuple[EncoderCall, ...]
    slots: tuple[Slot, ...]
    taken: frozenset[str]
    kept: tuple[str, ...]


def own_results(loop: PromptLoop) -> list[str]:
    """Return the names of ``encode_prompt``'s results for a prompt, in its order."""
    every = (name for call in loop.calls for name in call.results)
    return [*dict.fromkeys(name for name in every if _is_own(name))]


def _is_own(result: str) -> bool:
    """Return whether the result depends on the prompt's text: not on a negative prompt, or only on
    its length."""
    return bool(result) and not (result.startswith("negative_") or _POSITIONS.search(result))


def prompt_loop(kind: type) -> PromptLoop:
    """Return how ``kind`` encodes prompts.

    Raises:
        UnsupportedPipelineError: the code of ``kind`` does not show it, or its loop takes no
            embeddings back from callbacks.
    """
    source = CallSource.of(kind)
    return source.once(_read, kind, source)


def _read(kind: type, source: CallSource) -> PromptLoop:
    name = kind.__name__
    if not hasattr(kind, "encode_prompt"):
        raise UnsupportedPipelineError(f"{name} has no encode_prompt: it makes no embeddings")
    tree = _call_of(kind, source)
    calls = tuple(_encoder_calls(tree, kind))
    taken = frozenset(_taken(tree))
    slots, kept = [], []
    for index, call in enumerate(calls):
        for result in call.results:
            if not _is_own(result):
                continue
            names = [n for n in (result, _ALIASES.get(result, "")) if n in taken]
            slots += [Slot(n, index, result) for n in names]
            if not names:
                kept.append(result)
    if not any(_ENCODED.search(slot.name) and "mask" not in slot.name for slot in slots):
        raise UnsupportedPipelineError(
            f"{name} cannot exchange its prompt: its loop takes no prompt embeddings back from a "
            "callback, or goes on with something else"
        )
    return PromptLoop(calls, tuple(slots), taken, tuple(kept))


def _call_of(kind: type, source: CallSource) -> ast.FunctionDef:
    for written in (call.written for call in source.calls):
        if written.tree is None:
            raise UnsupportedPipelineError(
                f"{kind.__name__}: its code cannot be read, so that nothing is known of how "
                "it encodes prompts"
            ) from written.unreadable
        tree = written.tree.body[0]
        if isinstance(tree, ast.FunctionDef) and "encode_prompt" in written.text:
            return tree
    raise UnsupportedPipelineError(f"{kind.__name__} does not call its encode_prompt")


def _encoder_calls(tree: ast.FunctionDef, kind: type) -> Iterator[EncoderCall]:
    method: Any = inspect.getattr_static(kind, "encode_prompt")
    signature = inspect.signature(inspect.unwrap(method))
    parameters = tuple(signature.parameters)[1:]
    main = "prompt" if "prompt" in parameters else parameters[0]
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)):
            continue
        if ast.unparse(node.value.func) != "self.encode_prompt":
            continue
        target = node.targets[0]
        elements = target.elts if isinstance(target, ast.Tuple) else [target]
        results = tuple(e.id if isinstance(e, ast.Name) and e.id != "_" else "" for e in elements)
        if results[0].startswith("negative_"):
            continue
        given = dict(zip(parameters, node.value.args, strict=False))
        given |= {word.arg: word.value for word in node.value.keywords if word.arg is not None}
        arguments: dict[str, Source] = {}
        prompts: dict[str, Source] = {}
        for name, expression in given.items():
            source = _source(expression)
            is_prompt = name == main or _OTHER_PROMPTS.match(name) or _ENCODED.search(name)
            if is_prompt:
                prompts[name] = source or ("value", None)
            elif source is not None:
                arguments[name] = source
            elif signature.parameters[name].default is inspect.Parameter.empty:
                raise UnsupportedPipelineError(
                    f"{kind.__name__} encodes its prompt with {name}={ast.unparse(expression)}, "
                    "which cannot be done again from a callback"
                )
        yield EncoderCall(results, arguments, prompts, main, parameters)


def _source(expression: ast.expr) -> Source | None:
    if isinstance(expression, ast.Name):
        return "local", expression.id
    if isinstance(expression, ast.Constant):
        return "value", expression.value
    if isinstance(expression, ast.Attribute) and ast.unparse(expression.value) == "self":
        return "attribute", expression.attr
    return None


def _taken(tree: ast.FunctionDef) -> Iterator[str]:
    """Yield the names that the innermost loop takes back from the callback, and reads elsewhere."""
    loops = [node for node in ast.walk(tree) if isinstance(node, ast.For) and any(_popped(node))]
    if not loops:
        return
    inner = min(loops, key=lambda loop: sum(1 for _ in ast.walk(loop)))
    popped = dict(_popped(inner))
    # To hand a tensor to the callback does not count as using it.
    handing: list[ast.AST] = [
        node
        for node in ast.walk(inner)
        if isinstance(node, ast.Assign) and "callback_kwargs" in ast.unparse(node.targets[0])
    ]
    # To read its dtype does not count either.
    about = [
        node
        for node in ast.walk(inner)
        if isinstance(node, ast.Attribute)
        and node.attr in _OF_ITS_KIND
        and isinstance(node.value, ast.Name)
    ]
    inside = {id(n) for part in [*popped.values(), *handing, *about] for n in ast.walk(part)}
    names = (node for node in ast.walk(inner) if isinstance(node, ast.Name))
    for name in names:
        if isinstance(name.ctx, ast.Load) and name.id in popped and id(name) not in inside:
            yield name.id


def _popped(loop: ast.For) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(loop):
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)):
            continue
        call, target = node.value, node.targets[0]
        if ast.unparse(call.func) == "callback_outputs.pop" and isinstance(target, ast.Name):
            name = call.args[0]
            if isinstance(name, ast.Constant) and name.value == target.id:
                yield target.id, call
