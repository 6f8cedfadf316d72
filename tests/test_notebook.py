"""Previews in a notebook's output: what is displayed, and what its buttons do. The kernel is made
up; tests/notebook has a real one, and a browser."""

from __future__ import annotations

import ast
import asyncio
import base64
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_kernel import FakeKernel, click_on, message
from PIL import Image
from sink_helpers import frame, no_thread_is_left, picture

from unicb import (
    Callback,
    GenerationCancelled,
    Interrupt,
    Preview,
    PreviewFrame,
    Step,
    UnicbError,
    UnsupportedPipelineError,
    bind,
    run_async,
    stream,
)
from unicb.sinks import Background, Notebook
from unicb_numpy.pipelines import ToyPipeline

__all__ = ["no_thread_is_left"]

STEPS = 8
FORMS = ['Preview("steps/{step:03d}.png")', "Preview(function)", "Preview(a_list)"]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    return FakeKernel(monkeypatch)


class Do(Callback):
    """Calls a function at the end of one step."""

    def __init__(self, function: Callable[[], Any], at: int) -> None:
        self.function, self.at = function, at

    def on_step_end(self, step: Step) -> None:
        if step.index == self.at:
            self.function()


def images(html: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/(\w+);base64,([^"]+)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for _, data in found]


def shown_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left out for coming too soon."""
    monkeypatch.setattr("unicb.sinks.notebook._LEAST_SECONDS", 0.0)
    monkeypatch.setattr("unicb.sinks.notebook._BYTES_PER_SECOND", 1e12)


# Where one is.


def test_elsewhere_the_error_has_the_three_usual_forms() -> None:
    with pytest.raises(TypeError) as error:
        Preview()
    assert all(form in str(error.value) for form in FORMS), error.value
    with pytest.raises(UnicbError, match="no Jupyter kernel") as other:
        Notebook()
    assert all(form in str(other.value) for form in FORMS), other.value


def test_ipython_in_a_terminal_is_no_notebook(here: FakeKernel) -> None:
    del here.shell.kernel
    with pytest.raises(TypeError, match="Jupyter"):
        Preview()


def test_importing_and_running_import_no_ipython() -> None:
    code = (
        "import sys, unicb; from unicb.sinks import Notebook\n"
        "from unicb_numpy.pipelines import ToyPipeline\n"
        "unicb.bind(ToyPipeline(), unicb.Preview([]), unicb.Progress('plain'))('x')\n"
        "print({name.partition('.')[0] for name in sys.modules} & {'IPython', 'ipywidgets'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_buttons_need_ipywidgets(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeKernel(monkeypatch, ipywidgets=None)
    assert Notebook() is not None
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'unicb\[notebook\]'"):
        Notebook(stop=True)


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"stop": 1}, TypeError),
        ({"size": 0}, ValueError),
        ({"batch": "every"}, ValueError),
        ({"fps": 0.0}, ValueError),
    ],
)
def test_bad_arguments(here: FakeKernel, arguments: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        Notebook(**arguments)


# One display, updated in place.


def test_one_display_is_updated_and_says_how_the_run_ended(
    here: FakeKernel, pipe: ToyPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown_at_once(monkeypatch)
    bind(pipe, Preview())("x", num_inference_steps=STEPS)
    [display] = here.displays
    assert [text.partition(",")[0] for text in display.texts] == [
        *(f"step {i}/{STEPS}" for i in range(1, STEPS + 1)),
        f"finished: {STEPS} steps",
    ]
    assert re.fullmatch(r"step 3/8, \S+ s a step, \d+:\d\d left", display.texts[2])
    [first] = images(display.shown[0]["text/html"])
    assert (first.format, first.size) == ("PNG", (8, 8))
    assert "width:256px" in display.shown[0]["text/html"]
    assert display.texts[-1] in display.shown[-1]["text/html"]


def test_each_run_has_a_display(here: FakeKernel, pipe: ToyPipeline) -> None:
    callbacks = bind(pipe, Preview())
    callbacks("x", num_inference_steps=2)
    callbacks("x", num_inference_steps=3)
    assert [display.texts[-1].partition(",")[0] for display in here.displays] == [
        "finished: 2 steps",
        "finished: 3 steps",
    ]


@pytest.mark.parametrize(
    ("callback", "said"),
    [
        (Interrupt(2), "stopped after step 3/8"),
        (Do(lambda: 1 / 0, 2), "failed after step 3/8"),
    ],
)
def test_an_early_end_is_told(
    here: FakeKernel, pipe: ToyPipeline, callback: Callback, said: str
) -> None:
    with suppress(ZeroDivisionError):
        bind(pipe, callback, Preview())("x", num_inference_steps=STEPS)
    # The failing callback comes first, so that step has no picture: the one before is shown.
    assert here.displays[0].texts[-1].startswith(said)


def test_several_pictures_are_shown_side_by_side(here: FakeKernel, pipe: ToyPipeline) -> None:
    bind(pipe, Preview())(["x", "y", "z"], num_inference_steps=2)
    html = here.displays[0].shown[-1]["text/html"]
    assert len(images(html)) == 3
    assert html.count("width:128px") == 3


@pytest.mark.parametrize(
    ("size", "first", "width"),
    [(None, (8, 8), 256), (300, (300, 300), 300), ((64, 32), (64, 32), 64)],
)
def test_size(here: FakeKernel, pipe: ToyPipeline, size: Any, first: Any, width: int) -> None:
    bind(pipe, Preview(size=size))("x", num_inference_steps=2)
    html = here.displays[0].shown[-1]["text/html"]
    assert images(html)[0].size == first
    assert f"width:{width}px" in html


def test_a_picture_with_many_pixels_is_sent_small(here: FakeKernel) -> None:
    sink = Notebook()
    large = PreviewFrame(0, 1, 0.0, [picture(0, (512, 384))])
    sink(large)
    sink.close()
    html = here.displays[0].shown[0]["text/html"]
    assert images(html)[0].format == "JPEG"
    assert "width:512px" in html
    assert len(html) < 512 * 384 * 3 / 2


def test_videos_play(here: FakeKernel) -> None:
    video = [picture(i) for i in range(5)]
    sink = Notebook(fps=4.0)
    sink(PreviewFrame(0, 1, 0.0, [video[2]], videos=[video, video]))
    sink.close()
    first, second = images(here.displays[0].shown[0]["text/html"])
    assert (first.n_frames, second.n_frames) == (5, 5)
    first.seek(1)
    first.load()
    assert first.info["duration"] == 250


def test_a_preview_takes_videos_whole_unless_they_have_to_be_decoded(here: FakeKernel) -> None:
    assert Preview()._frames == "animation"
    assert Preview(decoder="vae")._frames == "middle"
    assert Preview(frames="strip")._frames == "strip"
    assert Preview([])._frames == "middle"


def test_what_comes_too_fast_is_left_out_but_not_the_last(here: FakeKernel) -> None:
    sink = Notebook()
    for step in range(50):
        sink(frame(step, 50))
    sink.close()
    [display] = here.displays
    assert len(display.shown) < 50
    assert images(display.shown[-1]["text/html"])[0].tobytes() == picture(4900).tobytes()


def test_nothing_is_displayed_of_a_run_without_a_frame(here: FakeKernel) -> None:
    sink = Notebook()
    sink.close()
    assert here.displays == []


def test_latents_are_those_of_a_plain_run(here: FakeKernel, pipe: ToyPipeline) -> None:
    plain = pipe("x", output_type="latent")
    for preview in (Preview(), Preview(Notebook(stop=True))):
        assert np.array_equal(bind(pipe, preview)("x", output_type="latent"), plain)


# Its buttons.


def endless() -> ToyPipeline:
    """A pipeline that cannot be stopped: it reads no flag, and nothing is known of its models."""
    ours = {"__dict__", "__weakref__", "interrupt"}
    members = {name: value for name, value in vars(ToyPipeline).items() if name not in ours}
    made: ToyPipeline = type("ToyPipeline", (), {**members, "unicb_facts": None})()
    return made


def buttons(here: FakeKernel) -> tuple[Any, Any]:
    box = here.displays[-1].shown[0]["widget"]
    stop, discard = box.children[1].children
    return stop, discard


def wait_for_display(here: FakeKernel) -> None:
    """The display is made by the thread of previews."""
    deadline = time.monotonic() + 60
    while not here.displays:
        assert time.monotonic() < deadline, "nothing is displayed"
        time.sleep(0.001)


class Click(Callback):
    """Clicks at the end of a step, once there is something to click on: in the way that a message
    comes in, or in the way that a kernel handles it."""

    def __init__(self, here: FakeKernel, which: int, at: int = 2, how: str = "received") -> None:
        self.here, self.which, self.at, self.how = here, which, at, how

    def on_step_end(self, step: Step) -> None:
        if step.index != self.at:
            return
        wait_for_display(self.here)
        button = buttons(self.here)[self.which]
        if self.how == "handled":
            button.click()
        elif self.how == "waiting":
            self.here.stream.waiting.append(click_on(button))
        else:
            self.here.stream._recv_callback(click_on(button))


STOP, DISCARD = 0, 1


@pytest.mark.parametrize("how", ["received", "handled", "waiting"])
def test_stop_gives_the_picture_so_far(
    here: FakeKernel, pipe: ToyPipeline, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "waiting":  # a kernel that receives in the main thread only
        here.kernel.shell_channel_thread = None
        fake: Any = type(sys)("zmq")
        fake.POLLIN = 1
        monkeypatch.setitem(sys.modules, "zmq", fake)
        monkeypatch.setattr("unicb.sinks._clicks._POLL_SECONDS", 0.0)
    callbacks = bind(pipe, Click(here, STOP, how=how), Preview(Notebook(stop=True)))
    output = callbacks("x", num_inference_steps=STEPS)
    assert (callbacks.state, callbacks.step) == ("interrupted", 2)
    assert np.array_equal(output, bind(pipe, Interrupt(2))("x", num_inference_steps=STEPS))
    [display] = here.displays
    assert display.texts[-1].startswith("stopped after step 3/8")
    assert "widget" not in display.shown[-1]


def test_discard_ends_it(here: FakeKernel, pipe: ToyPipeline) -> None:
    callbacks = bind(pipe, Click(here, DISCARD), Preview(Notebook(stop=True)))
    with pytest.raises(GenerationCancelled) as error:
        callbacks("x", num_inference_steps=STEPS)
    assert (callbacks.state, error.value.step) == ("cancelled", 2)
    assert error.value.latents.shape == (1, 4, 8, 8)
    assert error.value._render_traceback_() == [f"GenerationCancelled: {error.value}"]
    assert here.displays[0].texts[-1].startswith("discarded after step 3/8")


def test_a_stop_shows_the_step_that_is_decoded(here: FakeKernel, pipe: ToyPipeline) -> None:
    """Which would be none of every fifth."""
    frames: list[PreviewFrame] = []
    notebook = Preview(Notebook(stop=True), every=5)
    everyone = Preview(frames)
    bind(pipe, Click(here, STOP), notebook, everyone)("x", num_inference_steps=STEPS)
    [last] = images(here.displays[0].shown[-1]["text/html"])
    assert last.tobytes() == frames[2].images[0].tobytes()


def test_the_first_click_counts(here: FakeKernel, pipe: ToyPipeline) -> None:
    clicks = [Click(here, STOP), Click(here, DISCARD)]
    callbacks = bind(pipe, *clicks, Preview(Notebook(stop=True)))
    callbacks("x", num_inference_steps=STEPS)
    assert callbacks.state == "interrupted"
    assert [button.disabled for button in buttons(here)] == [True, True]


def test_buttons_are_gone_after_the_run(here: FakeKernel, pipe: ToyPipeline) -> None:
    before = here.stream._recv_callback
    bind(pipe, Preview(Notebook(stop=True)))("x", num_inference_steps=STEPS)
    assert here.stream._recv_callback == before
    box = here.displays[0].shown[0]["widget"]
    assert all(widget.closed for widget in (box, *box.children, *buttons(here)))


def test_a_button_waits_for_its_click_to_be_handled(here: FakeKernel, pipe: ToyPipeline) -> None:
    """Or the kernel would have a message for what is not there any more."""
    bind(pipe, Click(here, STOP), Preview(Notebook(stop=True)))("x", num_inference_steps=STEPS)
    stop, _ = buttons(here)
    assert here.stream.handled == [click_on(stop)]  # it has gone on its way
    assert not stop.closed
    stop.click()
    assert stop.closed


@pytest.mark.parametrize(
    "other",
    [
        message("execute_request", code="1"),
        message("comm_msg", comm_id="somebody's", data={}),
        message("comm_msg"),
        ["no message"],
    ],
)
def test_other_messages_pass(here: FakeKernel, pipe: ToyPipeline, other: Any) -> None:
    def receive() -> None:
        wait_for_display(here)
        here.stream._recv_callback(other)

    callbacks = bind(pipe, Do(receive, 2), Preview(Notebook(stop=True)))
    callbacks("x", num_inference_steps=STEPS)
    assert callbacks.state == "finished"
    assert here.stream.handled == [other]


def test_a_kernel_of_another_kind_says_what_works(here: FakeKernel, pipe: ToyPipeline) -> None:
    del here.kernel.shell_stream
    callbacks = bind(pipe, Click(here, STOP, how="handled"), Preview(Notebook(stop=True)))
    callbacks("x", num_inference_steps=STEPS)
    assert callbacks.state == "interrupted"
    assert "await unicb.run_async(...)" in here.displays[0].shown[0]["widget"].children[0].value


def test_what_cannot_be_stopped_is_refused_at_once(here: FakeKernel) -> None:
    with pytest.raises(UnsupportedPipelineError, match="reads no interrupt flag"):
        bind(endless(), Preview(Notebook(stop=True)))


@pytest.mark.parametrize("which", ["stream", "async", "by hand"])
def test_buttons_work_in_other_forms(here: FakeKernel, pipe: ToyPipeline, which: str) -> None:
    given = [Click(here, STOP), Preview(Notebook(stop=True))]
    if which == "stream":
        events = [*stream(pipe, "x", num_inference_steps=STEPS, callbacks=given)]
        assert len(events) <= 4
    elif which == "async":
        callbacks = bind(pipe, *given)
        asyncio.run(run_async(pipe, "x", callbacks, num_inference_steps=STEPS))
        assert callbacks.state == "interrupted"
    else:
        callbacks = bind(pipe, *given)
        pipe("x", num_inference_steps=STEPS, **callbacks)
        assert callbacks.state == "interrupted"
    assert here.displays[0].texts[-1].startswith("stopped after step 3/8")


# Interrupting the kernel.


@pytest.fixture
def usual() -> Iterator[None]:
    """Ctrl-C raises, and is left to do so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def test_an_interrupt_gives_the_picture_so_far(
    here: FakeKernel, pipe: ToyPipeline, usual: None
) -> None:
    callbacks = bind(pipe, Do(press, 2), Preview())
    callbacks("x", num_inference_steps=STEPS)
    assert (callbacks.state, callbacks.step) == ("interrupted", 2)


def test_once_more_in_the_same_cell_raises(
    here: FakeKernel, pipe: ToyPipeline, usual: None
) -> None:
    """In a further run, too: who presses twice wants out of a loop over prompts."""
    callbacks = bind(pipe, Do(press, 2), Preview())
    here.shell.execution_count = 7
    callbacks("x", num_inference_steps=STEPS)
    with pytest.raises(KeyboardInterrupt):
        callbacks("x", num_inference_steps=STEPS)
    assert here.displays[-1].texts[-1].startswith("failed after step 3/8")
    here.shell.execution_count = 8
    callbacks("x", num_inference_steps=STEPS)
    assert callbacks.state == "interrupted"


def test_twice_in_a_run_raises(here: FakeKernel, pipe: ToyPipeline, usual: None) -> None:
    here.shell.execution_count = 17
    callbacks = bind(pipe, Do(press, 2), Do(press, 2), Preview())
    with pytest.raises(KeyboardInterrupt):
        callbacks("x", num_inference_steps=STEPS)
    assert pipe("x", num_inference_steps=2).shape == (1, 8, 8, 4)


def test_without_a_display_it_raises_as_ever(pipe: ToyPipeline, usual: None) -> None:
    with pytest.raises(KeyboardInterrupt):
        bind(pipe, Do(press, 2), Preview([]))("x", num_inference_steps=STEPS)


def test_an_awaited_run_is_interrupted_too(
    here: FakeKernel, pipe: ToyPipeline, usual: None
) -> None:
    here.shell.execution_count = 27

    def press_from_here() -> None:
        os.kill(os.getpid(), signal.SIGINT)  # which reaches the main thread
        callbacks._handle.look()

    callbacks = bind(pipe, Do(press_from_here, 2), Slowly(), Preview())

    async def cell() -> Any:
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return await run_async(pipe, "x", callbacks, num_inference_steps=STEPS)
        finally:
            signal.signal(signal.SIGINT, before)

    assert asyncio.run(cell()).shape == (1, 8, 8, 4)
    assert callbacks.state == "interrupted"


def test_a_stream_is_interrupted_too(here: FakeKernel, pipe: ToyPipeline, usual: None) -> None:
    here.shell.execution_count = 37

    def press_from_here() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    given = [Do(press_from_here, 2), Slowly(), Preview()]
    # It waits for the result, and is shown no frames.
    events = stream(pipe, "x", num_inference_steps=STEPS, every=STEPS, callbacks=given)
    *_, last = events
    assert last.output.shape == (1, 8, 8, 4)
    assert repr(events) == "<Stream of ToyPipeline: interrupted>"


class Slowly(Callback):
    """Leaves the main thread time to see a signal."""

    def on_step_end(self, step: Step) -> None:
        time.sleep(0.05)


def test_what_is_offered_is_not_forced_on_what_cannot_be_interrupted(usual: None) -> None:
    class Offering(Do):
        on_sigint = "interrupt"

    pipe = endless()
    vars(pipe)["interrupt"] = False
    with pytest.raises(KeyboardInterrupt):
        bind(pipe, Offering(press, 2))("x", num_inference_steps=STEPS)
    callbacks = bind(ToyPipeline(), Offering(press, 2))
    callbacks("x", num_inference_steps=STEPS)
    assert callbacks.state == "interrupted"


# The page about all this.


def test_the_page(here: FakeKernel, pipe: ToyPipeline, capsys: Any) -> None:
    page = (Path(__file__).parents[1] / "docs" / "notebook.md").read_text("utf-8")
    blocks = re.findall(r"^```(python|text)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 6
    names: dict[str, Any] = {"pipe": pipe}
    for language, text in blocks:
        if language == "python":
            capsys.readouterr()
            code = compile(text, "notebook.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            if (awaitable := eval(code, names)) is not None:
                asyncio.run(awaitable)
        else:
            assert capsys.readouterr().out == text
    assert len(here.displays) == 3


# A frame by itself.


def test_a_frame_shows_itself() -> None:
    one, two = frame(4, 10), frame(4, 10, batch=2)
    found = Image.open(io.BytesIO(one._repr_png_()))
    assert found.tobytes() == one.images[0].tobytes()
    assert Image.open(io.BytesIO(two._repr_png_())).size == (18, 8)
    assert [image.size for image in images(two._repr_html_())] == [(8, 8), (8, 8)]
    assert "step 5/10" in one._repr_html_()


def test_a_frame_of_videos_plays() -> None:
    video = [picture(i) for i in range(3)]
    [shown] = images(PreviewFrame(0, 1, 0.0, [video[1]], videos=[video])._repr_html_())
    assert shown.n_frames == 3


def test_a_sink_of_ones_own_may_ask(pipe: ToyPipeline) -> None:
    """As the Sink protocol says."""

    class Enough:
        asks = True
        told: Any = None
        count = 0

        def __call__(self, frame: PreviewFrame) -> None:
            pass

        def asked(self) -> str | None:
            Enough.count += 1
            return "interrupt" if Enough.count == 3 else None

        def ended(self, outcome: str, done: int) -> None:
            Enough.told = outcome, done

        def close(self) -> None:
            pass

    bind(pipe, Preview(Background(Enough())))("x", num_inference_steps=STEPS)
    assert Enough.told == ("interrupted", 3)
