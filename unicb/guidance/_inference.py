"""Read from a pipeline class's code how its guidance works, if the data files have no facts.

Pipelines are written alike: a loop that calls ``callback_on_step_end`` (or, in a class that takes
no callback, steps its scheduler) and unpacks the denoiser's output into names such as
``noise_pred_uncond, noise_pred_text``, or calls the denoiser again under
``if self.do_classifier_free_guidance``. Facts are read from a class that is written so; if anything
is unclear, there are none. A run's first step with guidance has to confirm them before guidance is
changed.
"""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, cast

from unicb.errors import UnsupportedPipelineError
from unicb.pipelines import Part, PipelineFacts, facts_owner, known_pipelines, usual_unbatched
from unicb.pipelines._called import DENOISER, aliases, model_calls
from unicb.pipelines._stepping import stepping_loop
from unicb.pipelines.fingerprint import is_proven, proven_releases
from unicb.pipelines.source import CALLBACK, CallSource, self_attribute, text_of

log = logging.getLogger("unicb")

_ROLES: tuple[tuple[str, Part], ...] = (
    (r"perturb|pag", "perturbed"),
    # Before the conditional names, since "uncond" contains "cond". "Image without text" counts
    # here.
    (r"unc|neg|null|image", "unconditional"),
    (r"text|cond|pos|prompt|_c$", "conditional"),
)


def facts_of_class(kind: type, known: PipelineFacts | None) -> PipelineFacts:
    """Return ``known`` if the class runs the loop that these facts are about; else facts read from
    its code.

    Raises:
        UnsupportedPipelineError: there are no facts, and none can be read.
    """
    source = CallSource.of(kind)
    caller = source.owner or kind
    owner = facts_owner(kind)
    if known is None or not issubclass(owner or kind, caller):
        return source.once(_read, kind, caller, known)
    if owner is None or "unicb_facts" in vars(owner) or source.once(_is_proven, owner, source):
        return known
    return source.once(_unproven, kind, known)


def _is_proven(owner: type, source: CallSource) -> bool:
    return is_proven(owner.__name__, source)


def _unproven(kind: type, known: PipelineFacts) -> PipelineFacts:
    log.warning(
        "the loop of %s is none of those that unicb was proven on (%s): its first step with "
        "guidance is observed, and the run ends with an error if that is not as unicb knows it",
        kind.__name__,
        ", ".join(proven_releases()),
    )
    return replace(known, verify=True)


def _read(kind: type, caller: type, known: PipelineFacts | None) -> PipelineFacts:
    found = infer(caller)
    if known is not None and _loop_of(CallSource.of(caller)) is None:
        return known  # its __call__ only wraps the call of its base class
    if found is not None and known is not None and _agree(found, known):
        return replace(known, verify=True)
    if found is None and known is None:
        raise UnsupportedPipelineError(
            f"cannot cut guidance on {kind.__name__}: how CFG works on this class is not among the "
            f"{len(known_pipelines())} that unicb knows, and its code does not tell. Say it in a "
            "class attribute `unicb_facts` (see unicb.PipelineFacts)"
        )
    facts = found if found is not None else replace(cast(PipelineFacts, known), verify=True)
    log.warning(
        "%s has a loop that unicb does not know; %s: %s. Its first step with guidance has to show "
        "the same; `unicb_facts` on the class settles it (see unicb.PipelineFacts)",
        kind.__name__,
        "its code tells" if found is not None else "taken to be as its base's",
        _described(facts),
    )
    return facts


def _agree(found: PipelineFacts, known: PipelineFacts) -> bool:
    """Return whether both facts agree on how guidance works. "switch" agrees with "calls"."""
    blocks = len(found.order)
    same_order = found.order == known.order[:blocks] and blocks >= known.least_blocks
    return same_order and (found.cfg == "batch") == (known.cfg == "batch")


def _described(facts: PipelineFacts) -> str:
    how = {"batch": "in one batch", "calls": "in several calls", "switch": "in switched calls"}
    models = ", ".join((*facts.denoisers, *facts.companions))
    return f"guidance {how.get(facts.cfg, facts.cfg)} of {models}, {' then '.join(facts.order)}"


def hands_on_callback(kind: type) -> bool:
    """Return whether a class's ``__call__`` only passes its callback on to a pipeline inside it."""
    return CallSource.of(kind).hands_on


def infer(kind: Any) -> PipelineFacts | None:
    """Read facts from the code of a class's ``__call__``; None if they cannot be read."""
    source = CallSource.of(kind)
    tree, loop = source.written.tree, _loop_of(source)
    if tree is None or loop is None or "perturbed" in ast.unparse(loop):
        return None
    standing = aliases(tree)
    calls = list(model_calls(loop, standing))
    models = list(dict.fromkeys(name for _, names in calls for name in names))
    models = [name for name in models if not hasattr(kind, name)]  # leave out methods
    denoisers = tuple(name for name in models if DENOISER.search(name))
    if not denoisers:
        return None
    companions = tuple(name for name in models if name not in denoisers)
    orders = set(_unpacked_orders(loop))
    sites = [site for site, names in calls if set(names) & set(denoisers)]
    if len(orders) == 1 and len(sites) == 1:
        return PipelineFacts(
            "read from the code of its __call__",
            denoisers,
            companions,
            order=orders.pop(),
            guidance_scale=_scale_read(loop),
            combination="other",
            unbatched=usual_unbatched(),
            verify=True,
        )
    if orders:
        return None
    return _two_calls(kind, loop, sites, denoisers, companions)


def _loop_of(source: CallSource) -> ast.For | ast.While | None:
    """Return the loop that calls the callback; in a class that takes no callback, the loop that
    steps its scheduler."""
    tree, loop = source.written.tree, source.written.loop
    if loop is not None or tree is None or CALLBACK in source.parameters:
        return loop
    function = tree.body[0]
    return stepping_loop(function) if isinstance(function, ast.FunctionDef) else None


def _role(name: str) -> Part | None:
    return next((part for pattern, part in _ROLES if re.search(pattern, name)), None)


def _unpacked_orders(loop: ast.AST) -> Iterator[tuple[Part, ...]]:
    """Yield the orders of blocks of rows, read from the names in ``a, b = prediction.chunk(2)``."""
    for node in ast.walk(loop):
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple)):
            continue
        chunked = node.value
        if not (
            isinstance(chunked, ast.Call)
            and isinstance(chunked.func, ast.Attribute)
            and chunked.func.attr in ("chunk", "split")
        ):
            continue
        names = [part.id for part in node.targets[0].elts if isinstance(part, ast.Name)]
        roles = tuple(_role(name) for name in names)
        if "unconditional" in roles and roles.count("conditional") == 1 and None not in roles:
            yield cast(tuple[Part, ...], roles)


def _two_calls(
    kind: Any,
    loop: ast.AST,
    sites: list[ast.Call],
    denoisers: tuple[str, ...],
    companions: tuple[str, ...],
) -> PipelineFacts | None:
    """Read the facts of a loop that calls its denoiser a second time when guidance is on."""
    if len(sites) != 2:
        return None
    parents = {child: node for node in ast.walk(loop) for child in ast.iter_child_nodes(node)}
    first, second = (_assigned(site, parents) for site in sites)
    if second is None or _role(second) != "unconditional" or first is None:
        return None
    if _role(first) == "unconditional":
        return None
    test = _guard(sites[1], parents)
    if test is None or ("guidance" not in test and "cfg" not in test):
        return None
    off = _off(kind) if "self.do_classifier_free_guidance" in test else None
    return PipelineFacts(
        "read from the code of its __call__",
        denoisers,
        companions,
        cfg="calls" if off is None else "switch",
        off=off or {},
        guidance_scale=_scale_read(loop),
        combination="other",
        verify=True,
    )


def _scale_read(loop: ast.AST) -> Literal["property", "local"]:
    """Tell where the loop reads its guidance scale. How it uses the scale is not read."""
    named = {node.id for node in ast.walk(loop) if isinstance(node, ast.Name)}
    read = {self_attribute(node) for node in ast.walk(loop)}
    is_property = read & {"guidance_scale", "_guidance_scale"} and "guidance_scale" not in named
    return "property" if is_property else "local"


def _assigned(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> str | None:
    """Return the name of the local variable that gets the call's result; None if there is none."""
    while node in parents:
        node = parents[node]
        if isinstance(node, ast.Assign):
            target = node.targets[0]
            return target.id if isinstance(target, ast.Name) else None
    return None


def _guard(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> str | None:
    """Return the test of the nearest ``if`` around the node; None if there is none."""
    while node in parents:
        node = parents[node]
        if isinstance(node, ast.If):
            return ast.unparse(node.test)
    return None


def _off(kind: Any) -> dict[str, float] | None:
    """Return the attribute and value that switch ``do_classifier_free_guidance`` off, from the
    property's code; None if that is unclear."""
    switch = getattr(kind, "do_classifier_free_guidance", None)
    if not isinstance(switch, property):
        return None
    try:
        code = text_of(switch.fget)
    except (OSError, TypeError):
        return None
    compared = re.fullmatch(
        r"self\._guidance_scale > ([01])(\.0)?", code.split("return ")[-1].strip()
    )
    return {"_guidance_scale": float(compared[1])} if compared else None
