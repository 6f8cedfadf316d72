"""A page in the browser: a picture forms before your eyes, to be stopped or discarded.

    pip install '.[torch,webui]'
    python examples/webui.py --framework torch

Its buttons are the two ways to end a run: see docs/webui.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr
from quickstart import CHECKPOINT, pipeline_class, seeded_latents

from unicb import sibling
from unicb.streaming import Result, Stream, stream

GUIDANCE_SCALE = 7.0
CSS = """
progress { all: revert; width: 100%; accent-color: var(--primary-500); }
.image-frame img { width: 100%; height: 100%; object-fit: contain; }
"""


def load(framework: str) -> Any:
    """Load the pipeline, with a scheduler that has as many steps to give as the model was trained
    on."""
    pipe = pipeline_class(framework).from_pretrained(CHECKPOINT)
    config, scheduler = pipe.scheduler.config, type(pipe.scheduler)
    pipe.scheduler = scheduler.from_config(config, timestep_spacing="trailing")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def build(pipe: Any, *, at_once: bool, steps: int = 200) -> gr.Blocks:
    """Build the page, to be launched.

    Args:
        pipe: a text-to-image pipeline.
        at_once: whether the runs of several visitors go on at the same time; if not, they take
            turns, and who waits sees the place in the queue.
        steps: what the slider stands at, from 1 to 1000.
    """
    runs: dict[str | None, Stream] = {}  # of each open page, by Gradio's name for its session

    def generate(prompt: str, steps: int, seed: int, request: gr.Request) -> Iterator[Any]:
        mine = sibling(pipe) if at_once else pipe
        done = 0

        def count(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> None:
            nonlocal done
            done = step + 1

        events = stream(
            mine,
            prompt,
            num_inference_steps=steps,
            guidance_scale=GUIDANCE_SCALE,
            latents=seeded_latents(mine, seed),
            max_fps=10,  # a browser need not see each step, so the steps are counted
            size=256,
            callbacks=[count],
        )
        runs[request.session_hash] = events
        picture = None
        try:
            with events:  # ends the run if the visitor is gone in the middle of it
                yield {**running(True), preview: None, result: None, bar: progress(0, steps)}
                for event in events:
                    match event:
                        case Result(output):
                            picture = output[0][0]
                        case frame:
                            yield {preview: frame.images[0], bar: progress(done, steps)}
        except Exception:
            yield {**running(False), preview: None, bar: progress(done, steps, "failed")}
            raise
        if picture is None:
            yield {**running(False), preview: None, bar: progress(done, steps, "discarded")}
        else:
            end = "finished" if done == steps else "stopped"
            yield {**running(False), result: picture, bar: progress(done, steps, end)}

    def stop(request: gr.Request) -> None:
        if events := runs.get(request.session_hash):
            events.interrupt()

    def discard(request: gr.Request) -> None:
        if events := runs.get(request.session_hash):
            events.cancel()

    def leave(request: gr.Request) -> None:
        discard(request)
        runs.pop(request.session_hash, None)

    def running(yes: bool) -> dict[Any, Any]:
        return {
            start_button: gr.update(interactive=not yes),
            stop_button: gr.update(interactive=yes),
            discard_button: gr.update(interactive=yes),
        }

    # Each preview becomes a file of some kilobytes. Every minute, files of ten minutes' age go.
    page = gr.Blocks(title="unicb", analytics_enabled=False, delete_cache=(60, 600))
    with page:
        prompt = gr.Textbox("a red star on a blue background", label="Prompt")
        with gr.Row():
            number = gr.Slider(1, 1000, steps, step=1, precision=0, label="Steps")
            seed = gr.Number(0, label="Seed", precision=0, minimum=0)
        with gr.Row():
            start_button = gr.Button("Start", variant="primary")
            stop_button = gr.Button("Stop", interactive=False)
            discard_button = gr.Button("Discard", variant="stop", interactive=False)
        bar = gr.HTML(progress(0, steps), elem_id="bar")
        with gr.Row():
            preview = gr.Image(label="Preview", height=300, elem_id="preview")
            result = gr.Image(label="Picture", format="png", height=300, elem_id="picture")

        gr.on(
            [start_button.click, prompt.submit],
            generate,
            [prompt, number, seed],
            [start_button, stop_button, discard_button, bar, preview, result],
            concurrency_limit=None if at_once else 1,
            show_progress="minimal",
            show_progress_on=bar,
        )
        stop_button.click(stop, queue=False)
        discard_button.click(discard, queue=False)
        page.unload(leave)
    return page


def progress(done: int, steps: int, end: str = "") -> str:
    """Return the HTML of the progress bar; ``end`` says how the run has ended."""
    words = f"step {done} of {steps}" if done else ""
    label = ": ".join(filter(None, [words, end])) or "&nbsp;"
    return f'<progress value="{done}" max="{steps}"></progress>{label}'


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--framework", choices=["torch", "mindspore"], default="torch")
    parser.add_argument("--steps", type=int, default=200, help="default: 200")
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1")
    parser.add_argument("--port", type=int, default=7860, help="default: 7860")
    options = parser.parse_args(arguments)

    pipe = load(options.framework)
    # MindSpore runs one pipeline at a time.
    page = build(pipe, at_once=options.framework != "mindspore", steps=options.steps)
    page.launch(server_name=options.host, server_port=options.port, css=CSS, show_error=True)


if __name__ == "__main__":
    main()
