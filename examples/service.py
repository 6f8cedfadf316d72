"""A web service: a picture forms in server-sent events, for as long as its client listens.

    pip install '.[torch,service]'
    python examples/service.py --framework torch
    curl -N 127.0.0.1:8000/runs --json '{"prompt": "a red star on a blue background"}'

docs/serving.md says what it sends, and why it is built like this.
"""

import argparse
import asyncio
import base64
import io
import logging
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from PIL import Image
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from quickstart import CHECKPOINT, pipeline_class, seeded_latents

from unicb import PreviewFrame, sibling
from unicb.callbacks import ProgressState
from unicb.streaming import Result, Stream, stream

MAX_BODY = 16_384  # bytes
ENDED = Counter("unicb_runs", "Requests, by how they ended", ["outcome"])
STEPS = Counter("unicb_steps", "Denoising steps")
WAITING = Gauge("unicb_waiting", "Requests in the queue")
RUNNING = Gauge("unicb_running", "Runs under way")
PREVIEW = object()
log = logging.getLogger("uvicorn.error")


class Order(BaseModel):
    """An order is what a client may ask for."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    prompt: str = Field(min_length=1, max_length=1000)
    num_inference_steps: int = Field(50, ge=1, le=1000)
    guidance_scale: float = Field(7.0, ge=1, le=30)
    seed: int = Field(0, ge=0, lt=2**32)
    wait: bool = True  # or be refused where no pipeline is free


class Job:
    """A job is an order with a handle to interrupt or cancel it, and the events for its client."""

    task: asyncio.Task[None]
    stream: Stream | None = None
    outcome = "finished"

    def __init__(self, order: Order) -> None:
        self.id, self.order = secrets.token_urlsafe(16), order
        self.events: asyncio.Queue[Any] = asyncio.Queue()
        self.preview: PreviewFrame | None = None
        self.previews = 0

    def tell(self, event: Any) -> None:
        if isinstance(event, PreviewFrame):  # a client that is slow to read gets the newest only
            self.preview, self.previews, event = event, self.previews + 1, PREVIEW
        self.events.put_nowait(event)

    async def take(self) -> Any:
        while (event := await self.events.get()) is PREVIEW:
            self.previews -= 1
            if self.previews == 0:
                return self.preview
        return event


class Queue:
    """A queue before a few pipelines: first come, first served, and only so many wait."""

    def __init__(self, pipes: Sequence[Any], max_waiting: int) -> None:
        self.pipes, self.count, self.max_waiting = list(pipes), len(pipes), max_waiting
        self.free = asyncio.Semaphore(len(pipes))  # which has the queue
        self.jobs: dict[str, Job] = {}
        self.waiting: list[Job] = []

    def check(self, order: Order) -> None:
        if len(self.jobs) >= self.count and not order.wait:
            raise HTTPException(409, "every pipeline is busy")
        if len(self.jobs) >= self.count + self.max_waiting:
            raise HTTPException(429, "too many are waiting", headers={"Retry-After": "5"})

    @asynccontextmanager
    async def turn(self, job: Job) -> AsyncIterator[Any]:
        """Wait for a pipeline. A task that is cancelled meanwhile has left the queue."""
        self.waiting.append(job)
        try:
            self.tell_positions()
            with WAITING.track_inprogress():
                await self.free.acquire()
        finally:
            self.waiting.remove(job)
            self.tell_positions()
        pipe = self.pipes.pop()
        try:
            yield pipe
        finally:
            self.pipes.append(pipe)
            self.free.release()

    def tell_positions(self) -> None:
        for position, job in enumerate(self.waiting, 1):
            job.tell(position)


async def run(queue: Queue, job: Job) -> None:
    """Wait, run, tell. To cancel the task of this is to leave the queue, or to end the run."""
    async with queue.turn(job) as pipe:
        how = job.order.model_dump(exclude={"seed", "wait"})
        how["latents"] = seeded_latents(pipe, job.order.seed)
        job.stream = stream(pipe, **how, progress=True, max_fps=10, size=256)
        with RUNNING.track_inprogress():
            async with job.stream as events:  # which waits for the end, however it comes
                async for event in events:
                    STEPS.inc(isinstance(event, ProgressState))
                    job.tell(event)


async def sent(event: Any) -> ServerSentEvent:
    """Make an event what its client gets to read. Pictures are encoded beside the event loop."""
    match event:
        case int():
            name, data = "queue", {"position": event}
        case ProgressState():
            name, data = "step", asdict(event)
        case PreviewFrame(step=step, images=[image, *_]):
            url = await asyncio.to_thread(data_url, image, "webp")
            name, data = "preview", {"step": step, "image": url}
        case Result(output=output):
            name, data = "result", {"image": await asyncio.to_thread(data_url, output[0][0], "png")}
        case _:
            name, data = "end", {"outcome": event}
    return ServerSentEvent(event=name, data=data)


def data_url(image: Image.Image, kind: str) -> str:
    file = io.BytesIO()
    image.save(file, kind)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def build(pipes: Sequence[Any], *, max_waiting: int = 8) -> FastAPI:
    """Return the service, for an ASGI server. ``pipes`` may run at the same time."""
    queue = Queue(pipes, max_waiting)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        for task in (tasks := [job.task for job in queue.jobs.values()]):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    app = FastAPI(title="unicb", lifespan=lifespan, max_body_size=MAX_BODY)

    async def admitted(order: Order) -> AsyncIterator[Job]:
        queue.check(order)  # now: nothing is sent yet, and a refusal has its HTTP status
        job = Job(order)
        queue.jobs[job.id] = job
        job.task = asyncio.create_task(run(queue, job))
        job.task.add_done_callback(lambda task: ended(job, task))
        try:
            yield job
        finally:  # the client has everything, or is gone
            job.task.cancel()
            await asyncio.wait([job.task])

    def ended(job: Job, task: asyncio.Task[None]) -> None:
        outcome = "cancelled" if task.cancelled() else "failed" if task.exception() else job.outcome
        if outcome == "failed":  # its client gets to know that, and the log why
            log.error("run %s failed", job.id, exc_info=task.exception())
        del queue.jobs[job.id]
        ENDED.labels(outcome).inc()
        job.tell(outcome)

    def known(run: str) -> Job:
        if run not in queue.jobs:
            raise HTTPException(404, "there is no such run, or it has ended")
        return queue.jobs[run]

    @app.post("/runs", response_class=EventSourceResponse)
    async def start(job: Annotated[Job, Depends(admitted)]) -> AsyncIterator[ServerSentEvent]:
        yield ServerSentEvent(event="run", data={"id": job.id})
        while not isinstance(event := await job.take(), str):
            yield await sent(event)
        yield await sent(event)

    @app.post("/runs/{run}/interrupt", status_code=202)
    async def interrupt(job: Annotated[Job, Depends(known)]) -> None:
        if job.stream is None or not job.stream.interrupt():
            raise HTTPException(409, "this run has not begun, or has no step to come")
        job.outcome = "interrupted"

    @app.delete("/runs/{run}", status_code=202)
    async def cancel(job: Annotated[Job, Depends(known)]) -> None:
        job.task.cancel()

    @app.get("/health")
    async def health() -> dict[str, int]:
        running, waiting = queue.count - len(queue.pipes), len(queue.waiting)
        return {"pipelines": queue.count, "running": running, "waiting": waiting}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app


def load(framework: str) -> list[Any]:
    """Load two pipelines on the same models; one on MindSpore, which runs one at a time."""
    pipe = pipeline_class(framework).from_pretrained(CHECKPOINT)
    config, scheduler = pipe.scheduler.config, type(pipe.scheduler)
    pipe.scheduler = scheduler.from_config(config, timestep_spacing="trailing")  # for 1000 steps
    pipe.set_progress_bar_config(disable=True)
    return [pipe] if framework == "mindspore" else [pipe, sibling(pipe)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--framework", choices=["torch", "mindspore"], default="torch")
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="default: 8000")
    parser.add_argument("--grace", type=int, default=20, help="seconds to finish in; default: 20")
    options = parser.parse_args(arguments)
    app = build(load(options.framework))
    # SIGTERM or Ctrl-C: what is there may finish, and after the grace it is cancelled.
    how = {"timeout_graceful_shutdown": options.grace, "limit_concurrency": 100}
    uvicorn.run(app, host=options.host, port=options.port, **how)


if __name__ == "__main__":
    main()
