"""examples/service.py by its own command line, with two pages more, for the tests to look at."""

from __future__ import annotations

import functools
import io
import sys
import threading
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

import service

from unicb import Callback, Step, streaming
from unicb.run import busy

SEEDS = range(10)
STEPS = 12
PROMPT = "a red star on a blue background"
BROKEN = 666  # a seed


class Count(Callback):
    steps = 0

    def on_step_end(self, step: Step) -> None:
        with LOCK:
            self.steps += 1


COUNT, LOCK = Count(), threading.Lock()


def plain_picture(pipe: Any, seed: int) -> bytes:
    """The PNG that the pipeline draws when it is called without unicb."""
    latents = service.seeded_latents(pipe, seed)
    how = {"num_inference_steps": STEPS, "guidance_scale": 7.0, "latents": latents}
    file = io.BytesIO()
    pipe(PROMPT, **how)[0][0].save(file, "png")
    return file.getvalue()


def traces(pipe: Any) -> dict[str, Any]:
    """What a hook or a changed class would be seen by."""
    found = {}
    for name in ("unet", "vae", "text_encoder", "scheduler"):
        part = getattr(pipe, name)
        inside = {key: len(value) for key, value in vars(part).items() if "hook" in key and value}
        found[name] = (id(type(part)), sorted(vars(part)), inside)
    return found


def build(pipes: list[Any], **how: Any) -> FastAPI:
    app = build_service(pipes, **how)
    plain = {seed: plain_picture(pipes[0], seed) for seed in SEEDS}  # before unicb has run
    for pipe in pipes:
        plain_picture(pipe, 0)
    before = [traces(pipe) for pipe in pipes]

    @app.get("/plain/{seed}")
    async def picture(seed: int) -> Response:
        return Response(plain[seed], media_type="image/png")

    @app.get("/computed")
    async def computed() -> int:
        """How many steps have ended in this process, whoever was told."""
        return COUNT.steps

    @app.get("/left")
    async def left() -> dict[str, Any]:
        """What runs have left behind: nothing, wherever none is under way."""
        threads = [each.name for each in threading.enumerate() if "unicb" in each.name]
        changed = [
            name
            for pipe, old in zip(pipes, before, strict=True)
            for name, trace in traces(pipe).items()
            if trace != old[name]
        ]
        return {
            "threads": threads,
            "changed": changed,
            "leases": len(busy._leases),
            "runs": len(streaming._jobs),
        }

    return app


def seeded_latents(pipe: Any, seed: int) -> Any:
    if seed == BROKEN:
        raise RuntimeError("broken on purpose")
    return drawn(pipe, seed)


if __name__ == "__main__":
    build_service, drawn = service.build, service.seeded_latents
    service.build, service.seeded_latents = build, seeded_latents
    service.stream = functools.partial(service.stream, callbacks=[COUNT])
    service.main()
