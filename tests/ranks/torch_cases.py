"""What each of two processes does, on torch: every case is made on both, at the same time.

A case returns what the ranks are to be compared by, or raises.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import signal
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from engines import STEPS, Engine, allow_cpu, denoiser, latents
from launched import Case, cases_of, make

from unicb import (
    Callback,
    CFGCutoff,
    GenerationCancelled,
    GuidanceInterval,
    GuidanceSchedule,
    Interrupt,
    LatentsNotFiniteError,
    NaNGuard,
    Preview,
    RankError,
    Step,
    Trajectory,
    bind,
    stream,
)
from unicb.backend import backend_for

ALL: dict[str, Case] = {}
#: The usual ones; those that take minutes; those after which the ranks are not what they were;
#: those of four processes; and those of an engine, whose name follows.
case = more = last = four = with_engine = cases_of(ALL)

#: By how much a run over ranks may differ from one of a single process, in standard deviations.
TOLERANCE = 1e-5
_engines: dict[str, Engine] = {}
_plain: dict[tuple[str, int], Any] = {}


def engine(name: str) -> Engine:
    if name not in _engines:
        _engines[name] = Engine(name, dist.get_world_size())
    return _engines[name]


def group_of(name: str) -> Any:
    """What bind is given: nothing, where the denoiser itself tells of its ranks."""
    return {"group": dist.group.WORLD} if name == "flux_alone" else {}


def digest(array: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def check_same(found: Any, expected: Any, tolerance: float = TOLERANCE) -> str:
    """Check the latents, and return a digest of them for the other rank to be compared with."""
    assert found.shape == expected.shape
    differs = float(np.abs(found - expected).max() / expected.std())
    assert differs <= tolerance, f"{differs:.2g} standard deviations"
    return digest(found)


def run(name: str, *callbacks: Any, steps: int = STEPS, **kwargs: Any) -> Any:
    made = engine(name)
    binding = bind(made.pipeline, *callbacks, **{**group_of(name), **kwargs})
    return latents(binding(**made.arguments(steps)))


def alone(name: str, *callbacks: Any, steps: int = STEPS) -> Any:
    """What one process computes; without callbacks, once."""
    if not callbacks and (name, steps) in _plain:
        return _plain[name, steps]
    made = engine(name)
    found = latents(bind(made.alone, *callbacks, group=None)(**made.arguments(steps)))
    if not callbacks:
        _plain[name, steps] = found
    return found


class At(Callback):
    """Does something at a step's end, on one rank."""

    tensors = ("latents",)

    def __init__(self, do: Callable[[Step], Any], step: int, rank: int) -> None:
        self.do, self.step, self.is_mine = do, step, rank == dist.get_rank()
        self.seen: list[int] = []

    def on_step_end(self, step: Step) -> None:
        self.seen.append(step.index)
        if self.is_mine and step.index == self.step:
            self.do(step)


def fail(step: Step) -> None:
    raise ValueError("boom")


def interrupt(step: Step) -> None:
    step.interrupt(picture="latents")


def after(step: int) -> Any:
    return Interrupt(step, picture="latents")


# What is computed.


def _equal(name: str) -> list[str]:
    found = []
    for make_callbacks in (
        lambda: [],
        lambda: [CFGCutoff(0.4)],
        lambda: [GuidanceInterval(0.2, 0.6)],
        lambda: [GuidanceSchedule(lambda progress: 6.0 - 4.0 * progress)],
        lambda: [Interrupt(2)],
        lambda: [CFGCutoff(0.2), after(3), NaNGuard()],
    ):
        found.append(check_same(run(name, *make_callbacks()), alone(name, *make_callbacks())))
    assert len(set(found)) == len(found)  # each of them does something
    return found


def _stops(name: str, words: dict[str, Any], at: tuple[int, ...], **kwargs: Any) -> list[str]:
    """A stop from each rank at each of these steps, of which negative ones count from the end, and
    then a request that nobody stops."""
    found: list[str] = []
    steps = At(interrupt, -1, 0)
    alone(name, steps)
    last = steps.seen[-1]  # of a scheduler of order 2, there are more than are asked for
    later = kwargs.get("agree") != "now"
    for word, do in words.items():
        for step in (each % (last + 1) for each in at):
            for rank in range(dist.get_world_size()):
                ends = min(step + later, last)
                found.append(_stopped(name, word, do, step, rank, ends, **kwargs))
                found.append(check_same(run(name, **kwargs), alone(name)))
    return found


def _stopped(name: str, word: str, do: Any, step: int, rank: int, ends: int, **kwargs: Any) -> str:
    """A run that one rank stops: what is left of it, in a word or a digest."""
    at = At(do or (lambda step: binding[0].cancel(now=True)), step, rank)
    made = engine(name)
    binding = [bind(made.pipeline, at, **{**group_of(name), **kwargs})]
    raised: Exception | None = None
    try:
        found = latents(binding[0](**made.arguments()))
    except Exception as error:
        raised = error
    if word == "interrupt":
        if raised is not None:
            raise raised
        assert at.seen == list(range(ends + 1)), at.seen
        return check_same(found, alone(name, after(ends)))
    if word == "cancel":
        assert isinstance(raised, GenerationCancelled), repr(raised)
        assert binding[0].state == "cancelled"
        assert raised.step == ends
        return word
    assert isinstance(raised, ValueError if rank == dist.get_rank() else RankError), repr(raised)
    assert binding[0].state == "failed"
    if rank != dist.get_rank():
        said = f"a callback of rank {rank} failed in step {step}: At: ValueError: boom"
        assert said in str(raised), str(raised)
    return word


WORDS: dict[str, Any] = {"interrupt": interrupt, "cancel": None, "fail": fail}


@with_engine
def equal(rank: int, folder: Path, name: str) -> Any:
    return _equal(name)


@with_engine
def stops(rank: int, folder: Path, name: str) -> Any:
    return _stops(name, WORDS, (0, 2, -2, -1))


@with_engine
def stops_now(rank: int, folder: Path, name: str) -> Any:
    return _stops(name, WORDS, (0, 2, -1), agree="now")


@case
def stops_wan_ulysses(rank: int, folder: Path) -> Any:
    return _stops("wan_ulysses", WORDS, (0, 2, -1))


@case
def stops_flux_ulysses_now(rank: int, folder: Path) -> Any:
    return _stops("flux_ulysses", WORDS, (2, -1), agree="now")


@case
def stops_flux_tensor(rank: int, folder: Path) -> Any:
    return _stops("flux_tensor", {"interrupt": interrupt}, (2,))


@case
def stops_of_an_engine_that_says_nothing(rank: int, folder: Path) -> Any:
    return _stops("flux_alone", WORDS, (2,))


@case
def loop_without_a_flag(rank: int, folder: Path) -> Any:
    made = engine("no_flag_fsdp2")
    calls: list[int] = []
    made.pipeline.unet.conv_in.register_forward_pre_hook(lambda *_: calls.append(1))
    found = _stops("no_flag_fsdp2", {"interrupt": interrupt}, (1, 3))
    # A stop at step 1 takes effect at 2, so that three calls are computed; at 3, five.
    counted, calls[:] = len(calls), []
    run("no_flag_fsdp2")
    assert counted == 2 * (3 + len(calls) + 5 + len(calls)), (counted, len(calls))
    return found


@case
def scheduler_of_order_2(rank: int, folder: Path) -> Any:
    name = "wan_heun_ulysses"
    found = [
        check_same(run(name, each()), alone(name, each()))
        for each in (lambda: CFGCutoff(0.4), lambda: Interrupt(3))
    ]
    for step in (1, 2):  # a whole step, and a half
        at = At(interrupt, step, 1)
        found.append(check_same(run(name, at), alone(name, after(step + 1))))
        found.append(check_same(run(name), alone(name)))
    return found


# Who shares.


@case
def who_shares_a_run(rank: int, folder: Path) -> Any:
    found = {}
    for name in ("flux_ulysses", "flux_tensor", "wan_fsdp2", "flux_alone"):
        binding = bind(engine(name).pipeline)
        sharing = binding._bound.sharing
        found[name] = sharing and list(sharing.ranks.all)
        binding._used = True
    # A process group is there; that alone makes no runs shared.
    assert found.pop("flux_alone") is None
    assert set(map(tuple, found.values())) == {(0, 1)}, found
    assert bind(engine("flux_ulysses").pipeline, group=None)._bound.sharing is None
    return found


@case
def data_parallel_ranks_stop_by_themselves(rank: int, folder: Path) -> Any:
    made = engine("flux_alone")
    found = latents(bind(made.pipeline, At(interrupt, 2, 1))(**made.arguments()))
    check_same(found, alone("flux_alone", *([after(2)] if rank == 1 else [])))
    return None


@case
def groups_that_bind_refuses(rank: int, folder: Path) -> Any:
    only = dist.new_group([0])
    pipeline = engine("flux_alone").pipeline
    if rank == 1:
        message = _raises(RankError, lambda: bind(pipeline, group=only))
        assert "this process, rank 1, is not in the group" in message
    else:
        assert bind(pipeline, group=only)._bound.sharing is None  # of one rank
    assert "takes a torch.distributed ProcessGroup" in _raises(
        TypeError, lambda: bind(pipeline, group="workers")
    )
    return None


@case
def group_may_be_a_mesh(rank: int, folder: Path) -> Any:
    mesh = dist.device_mesh.init_device_mesh("cpu", (2,))
    found = run("flux_alone", At(interrupt, 2, 0), group=mesh)
    return check_same(found, alone("flux_alone", after(3)))


def _raises(kinds: Any, call: Callable[[], Any]) -> str:
    try:
        call()
    except kinds as error:
        return str(error)
    raise AssertionError("nothing was raised")


# Other ways to stop.


@case
def asked_before_the_run(rank: int, folder: Path) -> Any:
    found = []
    made = engine("flux_ulysses")
    for asker in range(2):
        binding = bind(made.pipeline)
        if rank == asker:
            binding.interrupt(picture="latents")
        found.append(
            check_same(latents(binding(**made.arguments())), alone("flux_ulysses", after(1)))
        )
        binding = bind(made.pipeline)
        if rank == asker:
            binding.cancel()
        _raises(GenerationCancelled, lambda binding=binding: binding(**made.arguments()))
        found.append(check_same(run("flux_ulysses"), alone("flux_ulysses")))
    return found


@case
def different_words_on_both_ranks(rank: int, folder: Path) -> Any:
    found = []
    made = engine("flux_ulysses")
    for words in (("interrupt", "cancel"), ("fail", "interrupt"), ("cancel", "fail")):
        for lag in (0, 1):
            for order in (words, words[::-1]):
                mine = order[rank]
                binding: list[Any] = []
                do = WORDS[mine] or (lambda step, binding=binding: binding[0].cancel())
                binding.append(bind(made.pipeline, At(do, 2 + lag * rank, rank)))
                raised = (GenerationCancelled, RankError, ValueError)
                message = _raises(raised, lambda binding=binding: binding[0](**made.arguments()))
                found.append("cancelled" if "cancelled" in message else "failed")
                check_same(run("flux_ulysses"), alone("flux_ulysses"))
    assert found == ["cancelled"] * 4 + ["failed"] * 8, found
    return found


@case
def not_a_number_on_one_rank(rank: int, folder: Path) -> Any:
    def spoil(step: Step) -> None:
        step["latents"] = step["latents"] * float("nan")

    found = []
    for action in ("raise", "stop"):
        for which in range(2):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                callbacks = At(spoil, 2, which), NaNGuard(action)
                if action == "raise":
                    _raises(
                        (RankError, LatentsNotFiniteError),
                        lambda c=callbacks: run("flux_ulysses", *c),
                    )
                else:
                    assert np.isfinite(run("flux_ulysses", *callbacks)).all()
            found.append(check_same(run("flux_ulysses"), alone("flux_ulysses")))
    return found


class Early(Callback):
    def before_first_step(self, step: Step) -> None:
        if dist.get_rank() == 1:
            raise ValueError("early")

    def on_step_end(self, step: Step) -> None: ...


@case
def errors_before_the_first_step(rank: int, folder: Path) -> Any:
    said = _raises((RankError, ValueError), lambda: run("flux_ulysses", Early()))
    assert said == (
        "early"
        if rank
        else "a callback of rank 1 failed before the first step: Early: ValueError: early"
    )
    found = [check_same(run("flux_ulysses"), alone("flux_ulysses"))]
    made = engine("flux_ulysses")
    arguments = made.arguments()
    if rank == 0:
        arguments["height"] = -3  # which the pipeline refuses, on this rank alone
    said = _raises(Exception, lambda: bind(made.pipeline)(**arguments))
    assert rank == 0 or "rank 0 failed before the run's first step" in said, said
    found.append(check_same(run("flux_ulysses"), alone("flux_ulysses")))
    return found


@case
def error_in_the_middle_of_a_step(rank: int, folder: Path) -> Any:
    # On a device, whose collectives the loop does not wait for, as here, where there are none.
    made = engine("flux_alone")
    calls: list[int] = []

    def breaks(*_: Any) -> None:
        calls.append(1)
        if rank == 0 and len(calls) == 6:
            raise OSError("out of memory")

    handle = denoiser(made.pipeline).register_forward_pre_hook(breaks)
    said = _raises((RankError, OSError), lambda: run("flux_alone"))
    handle.remove()
    assert rank == 0 or "rank 0 left the run after step 1: OSError: out of memory" in said, said
    return check_same(run("flux_alone"), alone("flux_alone"))


@case
def several_errors_in_the_middle_of_a_step(rank: int, folder: Path) -> Any:
    made, found = engine("flux_alone"), []
    for first in range(2):
        calls: list[int] = []

        def breaks(*_: Any, calls: list[int] = calls, last: int = 6 + 2 * (rank == first)) -> None:
            calls.append(1)
            if len(calls) == last:  # a step later on one rank than on the other
                raise OSError("out of memory")

        handle = denoiser(made.pipeline).register_forward_pre_hook(breaks)
        assert _raises((RankError, OSError), lambda: run("flux_alone")) == "out of memory"
        handle.remove()
        found.append(
            check_same(run("flux_alone", At(interrupt, 2, 1)), alone("flux_alone", after(3)))
        )
        found.append(check_same(run("flux_alone"), alone("flux_alone")))
    return found


@case
def different_callbacks(rank: int, folder: Path) -> Any:
    said = _raises(RankError, lambda: run("flux_ulysses", *([CFGCutoff(0.4)] if rank else [])))
    assert "rank 0: FluxPipeline with nothing" in said, said
    assert "rank 1: FluxPipeline with CFGCutoff" in said
    said = _raises(RankError, lambda: run("flux_ulysses", CFGCutoff(0.4 + 0.2 * rank)))
    said = _raises(RankError, lambda: run("flux_ulysses", steps=STEPS + rank))
    assert "rank 1 is before the first of 7 steps" in said, said
    return check_same(run("flux_ulysses"), alone("flux_ulysses"))


@case
def star_form(rank: int, folder: Path) -> Any:
    made, found = engine("flux_ulysses"), []
    for do, ends in ((interrupt, 3), (fail, None)):
        callbacks = bind(made.pipeline, At(do, 2, 0))
        if ends is None:
            raised = _raises(
                (RankError, ValueError),
                lambda callbacks=callbacks: made.pipeline(**made.arguments(), **callbacks),
            )
            assert "boom" in raised
        else:
            output = latents(made.pipeline(**made.arguments(), **callbacks))
            found.append(check_same(output, alone("flux_ulysses", after(ends))))
    plain = latents(made.pipeline(**made.arguments(), **bind(made.pipeline)))
    return [*found, check_same(plain, alone("flux_ulysses"))]


@case
def control_c_on_one_rank(rank: int, folder: Path) -> Any:
    def press(step: Step) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    found = run("flux_ulysses", At(press, 2, 1), on_sigint="interrupt")
    return check_same(found, alone("flux_ulysses", Interrupt(3)))


@contextlib.contextmanager
def _clock(skew: float, pace: float) -> Iterator[None]:
    """A block in which this process's clock stands elsewhere, and goes at another pace."""
    clock = time.monotonic
    began = clock()
    time.monotonic = lambda: began + skew + pace * (clock() - began)
    try:
        yield
    finally:
        time.monotonic = clock


def _deadlines(count: int) -> list[Any]:
    """Runs with a deadline, where the ranks' clocks differ: where each of them stopped."""
    random = np.random.default_rng(3 + dist.get_rank())  # other numbers on each rank
    found = []
    for _ in range(count):
        steps = At(lambda step: None, 0, 0)
        with _clock(random.uniform(-0.02, 0.02), random.uniform(0.7, 1.5)):
            late = Interrupt(deadline=0.03, picture="latents")
            latest = run("flux_ulysses", steps, late, steps=20)
        found.append((len(steps.seen), digest(latest)))
        stopped_there = alone("flux_ulysses", after(len(steps.seen) - 1), steps=20)
        check_same(latest, stopped_there)
    assert {steps for steps, _ in found} - {20}, "no run was stopped by its deadline"
    return found


@case
def deadlines_with_skewed_clocks(rank: int, folder: Path) -> Any:
    return _deadlines(10)


@more
def three_hundred_deadlines_with_skewed_clocks(rank: int, folder: Path) -> Any:
    return _deadlines(300)


@case
def twenty_requests_in_a_row(rank: int, folder: Path) -> Any:
    random = np.random.default_rng(11)  # the same on each rank
    found = []
    for number in range(20):
        word, step, asker = ["", *WORDS][number % 4], int(random.integers(STEPS)), number // 4 % 2
        if word:
            ends = min(step + 1, STEPS - 1)
            found.append(_stopped("flux_ulysses", word, WORDS[word], step, asker, ends))
        else:
            found.append(check_same(run("flux_ulysses"), alone("flux_ulysses")))
    return found


# Sinks.


@case
def shown_and_written_once(rank: int, folder: Path) -> Any:
    made, frames = engine("flux_ulysses"), []
    callbacks = bind(
        made.pipeline,
        Preview(str(folder / "once" / "{step}.png")),
        Preview(str(folder / "each" / "{rank}-{step}.png")),
        Preview(frames),
        Trajectory(folder / "once" / "latents.npz"),
    )
    callbacks(**made.arguments(2))
    dist.barrier()
    assert len(frames) == (0 if rank else 2)
    once, each = (sorted(path.name for path in (folder / n).iterdir()) for n in ("once", "each"))
    assert once == ["0.png", "1.png", "latents.npz"], once
    assert each == ["0-0.png", "0-1.png", "1-0.png", "1-1.png"], each
    assert np.load(folder / "once" / "latents.npz")["latents"].shape[0] == 2
    return None


@case
def stream_on_both_ranks(rank: int, folder: Path) -> Any:
    made = engine("flux_ulysses")
    events = list(stream(made.pipeline, **made.arguments(), backlog=STEPS))
    assert len(events) == 1 + (0 if rank else STEPS)
    found = [check_same(latents(events[-1].output), alone("flux_ulysses"))]
    events = stream(made.pipeline, **made.arguments(), callbacks=[At(interrupt, 2, 1)])
    *_, result = events
    found.append(check_same(latents(result.output), alone("flux_ulysses", after(3))))
    return found


@case
def decoder_is_called_on_both_ranks(rank: int, folder: Path) -> Any:
    made, calls, shown = engine("flux_ulysses"), [], []

    def decode(found: Any) -> Any:
        # One that communicates: it would wait for a rank that does not call it.
        calls.append(1)
        total = torch.ones(1)
        dist.all_reduce(total)
        return torch.zeros(1, 3, 8, 8) + total / 4

    bind(made.pipeline, Preview(shown, decoder=decode))(**made.arguments())
    assert len(calls) == STEPS
    assert len(shown) == (0 if rank else STEPS)
    return None


@case
def data_parallel_ranks_write_no_common_file(rank: int, folder: Path) -> Any:
    made = engine("flux_alone")

    def write(template: str) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            bind(made.pipeline, Preview(str(folder / template)))(**made.arguments(2))
        return [str(each.message) for each in caught if "previews are off" in str(each.message)]

    if rank == 1:
        dist.barrier()
    said = write("common-{step}.png")
    if rank == 0:
        dist.barrier()
    assert len(said) == rank, said
    assert not said or "rank 0 writes" in said[0]
    assert write("own-{rank}-{step}.png") == []
    dist.barrier()
    names = sorted(path.name for path in folder.glob("*.png"))
    assert names == ["common-0.png", "common-1.png"] + [
        f"own-{each}-{step}.png" for each in range(2) for step in range(2)
    ], names
    return None


# What a step costs; for docs/devices.md.


@more
def cost_of_a_step(rank: int, folder: Path) -> Any:
    from unicb.run.agreement import Agreement, Own

    found = {}
    for agree in ("later", "now"):
        binding = bind(engine("flux_ulysses").pipeline, agree=agree)
        binding._used = True
        times = []
        agreement = Agreement(binding._bound.sharing)
        matrix = torch.randn(300, 300)
        for step in range(1000):
            matrix @ matrix  # the device's work
            began = time.perf_counter()
            agreement.step_end(lambda is_last: Own(), step, 1001, False)
            times.append(time.perf_counter() - began)
        agreement.step_end(lambda is_last: Own(), 1000, 1001, True)
        found[agree] = round(1e6 * float(np.median(times[100:])))
    print(f"microseconds a step on rank {rank}: {found}", flush=True)
    return None


# Cases after which a rank, or a group, is not what it was: made last, in this order.


#: Seconds to wait for another rank, where it will not come.
SHORT = 3.0


@last
def process_group_made_anew(rank: int, folder: Path) -> Any:
    made, claim = engine("flux_alone"), backend_for(engine("flux_alone").pipeline).claim
    old = [bind(made.pipeline, group=dist.group.WORLD)]
    check_same(latents(old[0](**made.arguments())), alone("flux_alone"))
    ranks = weakref.ref(old[0]._bound.sharing.ranks)
    if rank == 1:
        dist.barrier()
    assert claim("a name") == 0
    if rank == 0:
        dist.barrier()
    dist.barrier()
    dist.destroy_process_group()
    begin(rank, 2, folder, "anew")
    assert "was destroyed" in _raises(RankError, lambda: old[0](**made.arguments()))
    old.clear()
    gc.collect()
    assert ranks() is None
    if rank == 0:
        dist.barrier()
    assert claim("a name") == 1
    if rank == 1:
        dist.barrier()
    return check_same(run("flux_alone"), alone("flux_alone"))


@last
def first_leave_waits_for_nobody(rank: int, folder: Path) -> Any:
    made, gone, timeout = engine("flux_alone"), folder / "gone", 40.0
    alone("flux_alone")
    binding = bind(made.pipeline, group=dist.group.WORLD, timeout=timeout)
    dist.barrier()
    if rank == 0:
        binding.cancel()
    else:
        # Not before the other has been told that its request is cancelled.
        until = time.monotonic() + timeout / 2
        while not gone.exists() and time.monotonic() < until:
            time.sleep(0.01)
        assert gone.exists()
    _raises(GenerationCancelled, lambda: binding(**made.arguments()))
    gone.touch()
    return check_same(run("flux_alone", timeout=timeout), alone("flux_alone"))


@last
def one_rank_only(rank: int, folder: Path) -> Any:
    alone("flux_alone")  # to build it takes a rank longer than others are to wait
    if rank == 0:
        # Nothing else waits for the other rank here.
        said = _raises(RankError, lambda: run("flux_alone", timeout=SHORT))
        assert "has not called the pipeline within 3 s" in said, said
    dist.barrier()
    return check_same(run("flux_alone", timeout=SHORT), alone("flux_alone"))


def _hang(folder: Path, name: str, agree: str) -> str:
    """Rank 1 hangs in a callback until rank 0 has given it up."""
    given_up = folder / f"{name}-{agree}"

    def hang(step: Step) -> None:
        for _ in range(6000):
            if given_up.exists():
                return
            time.sleep(0.01)

    alone(name)
    dist.barrier()
    said = _raises(RankError, lambda: run(name, At(hang, 2, 1), timeout=SHORT, agree=agree))
    assert "does not hear from all of the ranks 0, 1" in said, said
    if dist.get_rank() == 0:
        given_up.touch()
    dist.barrier()
    return check_same(run(name, timeout=SHORT, agree=agree), alone(name))


@last
def hung_rank(rank: int, folder: Path) -> Any:
    return _hang(folder, "flux_alone", "later")


@last
def hung_rank_now(rank: int, folder: Path) -> Any:
    return _hang(folder, "flux_alone", "now")


@last
def hung_rank_of_an_engine(rank: int, folder: Path) -> Any:
    # Where the denoiser's own collectives wait on the host, agree="now" notices it.
    return _hang(folder, "flux_ulysses", "now")


@last
def process_group_destroyed_in_mid_run(rank: int, folder: Path) -> Any:
    def destroy(step: Step) -> None:
        dist.destroy_process_group()

    said = _raises(RankError, lambda: run("flux_alone", At(destroy, 2, 0), timeout=SHORT))
    assert rank == 1 or "the process group was destroyed" in said, said
    if rank == 1:
        dist.destroy_process_group()
    begin(rank, 2, folder, "again")
    _engines.clear()
    return check_same(run("flux_ulysses"), alone("flux_ulysses"))


@last
def killed_rank(rank: int, folder: Path) -> Any:
    def die(step: Step) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    said = _raises(RankError, lambda: run("flux_alone", At(die, 2, 1)))
    assert "timed out" not in said.lower(), said  # it is noticed at once
    return said


# Four processes: two groups of two.


@four
def two_groups_of_two(rank: int, folder: Path) -> Any:
    from diffusers import ContextParallelConfig

    mesh = dist.device_mesh.init_device_mesh(
        "cpu", (2, 1, 2), mesh_dim_names=("data", "ring", "ulysses")
    )

    def spread(model: Any, size: int) -> None:
        config = ContextParallelConfig(ulysses_degree=2, mesh=mesh["ring", "ulysses"])
        model.enable_parallelism(config=config)

    made = _engines["flux_ulysses"] = Engine("flux_ulysses", 2, spread)
    binding = bind(made.pipeline)
    binding._used = True
    pair = [0, 1] if rank < 2 else [2, 3]
    assert list(binding._bound.sharing.ranks.all) == pair
    found = []
    # Rank 3 stops; the first pair knows nothing of it.
    output = run("flux_ulysses", At(interrupt, 2, 3))
    found.append(check_same(output, alone("flux_ulysses", *([after(3)] if rank > 1 else []))))
    said = ""
    try:
        run("flux_ulysses", At(fail, 2, 0))
    except (RankError, ValueError) as error:
        said = str(error)
    assert bool(said) == (rank < 2)
    assert rank != 1 or "a callback of rank 0 failed in step 2" in said
    found.append(check_same(run("flux_ulysses"), alone("flux_ulysses")))
    bind(made.pipeline, Preview(str(folder / "{rank}-{step}.png")))(**made.arguments(2))
    dist.barrier()
    assert len([*folder.glob("*.png")]) == 8
    return found[1]


@four
def four_ranks_decide_as_one(rank: int, folder: Path) -> Any:
    _engines.clear()
    return _stops("flux_alone", WORDS, (2,))


def begin(rank: int, size: int, folder: Path, name: str = "store") -> None:
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / name}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=30),
    )


def work(rank: int, size: int, folder: Path, names: list[str]) -> None:
    """What a process does."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="enable_parallelism")
    os.environ.pop("RANK", None)
    allow_cpu()
    begin(rank, size, folder)
    make(ALL, names, folder, rank)
    with contextlib.suppress(Exception):
        dist.destroy_process_group()
