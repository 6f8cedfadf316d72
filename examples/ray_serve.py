"""Ray Serve: two replicas that send a picture while it forms, each one request at a time.

    pip install '.[torch,ray]'
    python examples/ray_serve.py --framework torch
    curl -N 127.0.0.1:8000/ --json '{"prompt": "a red star on a blue background"}'

Who waits, who is refused (503) and which replica is next is Ray's own to decide. A client that goes
away has its request cancelled by Ray, and with it the run: see docs/serving.md.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
from collections.abc import AsyncIterator, Sequence
from typing import Any

import ray
from PIL import Image
from quickstart import CHECKPOINT, pipeline_class, seeded_latents
from ray import serve
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from unicb import Callback, CFGCutoff, PreviewFrame
from unicb.callbacks import ProgressState
from unicb.streaming import Stream, stream

MAX_STEPS = 500


@serve.deployment(
    num_replicas=2,
    max_ongoing_requests=1,  # a pipeline runs one at a time
    max_queued_requests=8,
    ray_actor_options={"num_cpus": 1},  # or {"num_gpus": 1}
)
class Draw:
    """A pipeline in a process of its own; the callbacks came there pickled."""

    def __init__(self, framework: str, callbacks: Sequence[Callback]) -> None:
        self.pipe = pipeline_class(framework).from_pretrained(CHECKPOINT)
        self.pipe.set_progress_bar_config(disable=True)
        self.callbacks = callbacks

    async def __call__(self, request: Request) -> Response:
        try:
            order = json.loads(await request.body())
            steps, seed = int(order.get("num_inference_steps", 50)), int(order.get("seed", 0))
            prompt = str(order["prompt"])[:1000]
            if not (0 < steps <= MAX_STEPS and seed >= 0):
                raise ValueError(f"num_inference_steps is for 1 to {MAX_STEPS}, seed from 0")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            return PlainTextResponse(f"{type(error).__name__}: {error}", 422)
        events = stream(
            self.pipe,
            prompt,
            num_inference_steps=steps,
            latents=seeded_latents(self.pipe, seed),
            callbacks=self.callbacks,
            progress=True,
            max_fps=10,
            size=256,
        )
        return StreamingResponse(read(events), media_type="text/event-stream")


async def read(events: Stream) -> AsyncIterator[str]:
    """Yield server-sent events. Where the request is cancelled, it waits for the end of the run."""
    async with events:
        yield sent("run", {"process": os.getpid()})
        async for event in events:
            match event:
                case ProgressState(step=step, num_timesteps=count):
                    yield sent("step", {"step": step, "num_timesteps": count})
                case PreviewFrame(step=step, images=[image, *_]):
                    yield sent("preview", {"step": step, "image": data_url(image, "webp")})
                case result:
                    yield sent("result", {"image": data_url(result.output[0][0], "png")})


def sent(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def data_url(image: Image.Image, kind: str) -> str:
    file = io.BytesIO()
    image.save(file, kind)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def main(
    arguments: Sequence[str] | None = None, callbacks: Sequence[Callback] = (CFGCutoff(0.8),)
) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--framework", choices=["torch", "mindspore"], default="torch")
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="default: 8000")
    options = parser.parse_args(arguments)
    ray.init(num_cpus=max(2, os.cpu_count() or 2), include_dashboard=False)
    serve.start(http_options={"host": options.host, "port": options.port})
    serve.run(Draw.bind(options.framework, list(callbacks)), blocking=True)


if __name__ == "__main__":
    main()
