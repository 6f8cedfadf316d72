"""Is what a preview shows what is in the latents, and where it is?

Two runs of the same request from the same noise: a plain one, and one with previews. unicb's own
layouts are not asked where anything is: the judge is the pipeline, by what it hands to its decoder
after the last step. Beside a ``Preview`` as users have it, previews of three channels each, one a
colour, are bound; together they show every number of the latents, to within their 8 bits. In each
channel, what they show and what the decoder got must be the same but for the scale and the shift
that the pipeline undoes before it decodes. The correlation tells, and it does not forgive a cell,
a frame, a row of the batch or a channel in another's place.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from unicb import Callback, LatentFormat, Preview, PreviewFrame, Step, bind
from unicb.errors import UnsupportedPipelineError
from unicb.latents.denoised import DenoisedEstimate
from unicb.pipelines import num_timesteps_of
from zoo.decoders import RETURNED, add_decoder
from zoo.entry import Entry, Request
from zoo.framework import Framework
from zoo.loops import called, caller

#: Least correlation, in any channel, of a preview with what the decoder got. 8 bits over the whole
#: range of the numbers leave more; two cells of n that are exchanged cost about 2 / n, and no entry
#: has more than 1000.
SAME = 0.999
#: How far colours that sum all channels may be off, of 255, in the mean.
NEAR = 2.0
#: Latent frames at the beginning that are changed between the loop and the decoder, by the titles
#: of entries.
CHANGED_LATER = {
    "AnyFlowPipeline (from a frame)": 1,  # the frame is put in again
    "Kandinsky5I2VPipeline": 4,  # they get the mean and deviation of those that follow
    "WanImageToVideoPipeline (a timestep for each token)": 1,  # the condition is put in again
}
#: Classes that step copies of their scheduler, which cannot be followed.
STEPS_COPIES = (
    "SkyReelsV2DiffusionForcingImageToVideoPipeline",
    "SkyReelsV2DiffusionForcingPipeline",
    "SkyReelsV2DiffusionForcingVideoToVideoPipeline",
    "StableDiffusionPanoramaPipeline",
)
#: Classes whose steps draw noise (DDIM's eta), behind which nobody sees the denoised picture.
DRAWS_NOISE = ("CycleDiffusionPipeline",)
#: Classes whose latents have two frames as channels; the picture is the second.
FRAMES_AS_CHANNELS = ("HunyuanImageRefinerPipeline",)
#: Classes whose tiny, untrained models end with latents so large in one channel that 8 bits for all
#: leave the others none, or beyond the -1..1 that they hand out. The last step's latents are
#: replaced by others, in plain runs too.
REPLACED = ("PNDMPipeline", "WuerstchenPriorPipeline")
#: Classes that begin with a smaller picture, half as wide at each stage before the last.
GROWS = ("HeliosPyramidPipeline",)
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Shown:
    """``Shown`` says what a preview of one class did with one request.

    Attributes:
        verdict: "right", "refused" (by ``bind``), "wrong", "failed" (the pipeline itself raised),
            "impossible" (the pipeline cannot do this case) or "not built".
        why: the reason, where it is not "right".
        correlation: the least correlation, over all channels, with the latents that the decoder
            got.
        size: "rows x frames x height x width" of the latents that the decoder got, in cells; of
            what is refused, the shape of the latents that callbacks get.
        source: the ``source`` of frames after the first.
        judge: where the latents for the comparison come from: "vae" or another decoder's name, or
            "returned" for pipelines that return their latents.
    """

    verdict: str
    why: str = ""
    correlation: float | None = None
    size: str = ""
    source: str = ""
    judge: str = ""


@dataclass
class Seen:
    """``Seen`` holds what came out of one run.

    Attributes:
        finals: latents at the end of the last step of each of the run's loops.
        calls: how often the callback was called.
        decoded: the latents that each call of a decoder got, by the decoder's name.
        output: all arrays that the pipeline returned.
    """

    finals: list[Array] = field(default_factory=list)
    calls: int = 0
    decoded: list[tuple[str, Array]] = field(default_factory=list)
    output: list[Array] = field(default_factory=list)

    def step_end(self, latents: Array, is_last: bool) -> None:
        # Loops that end without telling so leave the last that there was.
        if self.calls and not self._after_last:
            self.finals.pop()
        self.finals.append(latents)
        self.calls += 1
        self._after_last = is_last

    _after_last: bool = False


class _Recorder(Callback):
    tensors = ("latents",)

    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def on_step_end(self, step: Step) -> None:
        is_last = step.index + 1 == step.num_timesteps
        self._seen.step_end(step.ops.to_numpy(step["latents"]).copy(), is_last)


class _Replacing(Callback):
    tensors = ("latents",)

    def on_step_end(self, step: Step) -> None:
        if step.index + 1 == step.num_timesteps:
            step["latents"] = step.ops.from_numpy(_others(step["latents"]), step["latents"])


def _others(latents: Any) -> Array:
    shape = tuple(latents.shape)
    return np.random.default_rng(11).uniform(-1, 1, shape).astype(np.float32)


@contextmanager
def watching_decoders(fx: Framework, pipeline: Any, seen: Seen) -> Iterator[None]:
    """Note what the pipeline's models are given to decode; sound is left out."""
    with ExitStack() as undo:
        for name, model in pipeline.components.items():
            decodes = fx.is_module(model) and hasattr(model, "decode") and "audio" not in name
            if decodes:
                undo.enter_context(_watching(fx, name, model, seen))
        yield


@contextmanager
def _watching(fx: Framework, name: str, model: Any, seen: Seen) -> Iterator[None]:
    base = type(model)

    def decode(self: Any, latents: Any, *args: Any, **kwargs: Any) -> Any:
        seen.decoded.append((name, fx.backend.ops.to_numpy(latents).copy()))
        return base.decode(self, latents, *args, **kwargs)

    model.__class__ = type(
        base.__name__, (base,), {"decode": decode, "__module__": base.__module__}
    )
    try:
        yield
    finally:
        model.__class__ = base


def run(entry: Entry, fx: Framework, pipeline: Any, request: Request, *previews: Preview) -> Seen:
    """Return one run, with unicb if there are previews and without if there are none."""
    seen, replaced = Seen(), entry.name in REPLACED

    def callback(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        is_last = index + 1 == num_timesteps_of(pipe)
        if is_last and replaced:
            latents = tensors["latents"]
            tensors["latents"] = fx.backend.ops.from_numpy(_others(latents), latents)
        seen.step_end(fx.backend.ops.to_numpy(tensors["latents"]).copy(), is_last)
        return tensors

    callbacks: Any = None
    if previews:
        before = [_Replacing()] if replaced else []
        callbacks = bind(pipeline, *before, *previews, _Recorder(seen))
    arguments = {**entry.arguments(fx, pipeline, request)}
    returned = entry.returns or ("latent" if entry.name in RETURNED else "")
    if "output_type" in arguments:
        arguments["output_type"] = fx.tensors_as if returned == "pt" else returned or "np"
    call = caller(entry, fx, pipeline, request)
    with watching_decoders(fx, pipeline, seen):
        if callbacks is None:
            output = call(arguments, callback)
        else:
            output = called(pipeline, callbacks, arguments)
    seen.output = list(arrays(output, fx))
    if returned:
        pictures = seen.output[0]
        if pictures.ndim == 4 and pictures.shape[-1] == 3:  # some of mindone's know no other way
            pictures = np.moveaxis(pictures, -1, 1)
        seen.decoded.append(("returned", pictures))
    return seen


def arrays(value: Any, fx: Framework) -> Iterator[Array]:
    """Yield all arrays, tensors and pictures in nested containers."""
    if fx.backend.is_tensor(value):
        yield fx.backend.ops.to_numpy(value).copy()
    elif isinstance(value, np.ndarray | Image.Image):
        yield np.array(value)
    elif isinstance(value, dict):
        yield from arrays(list(value.values()), fx)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from arrays(item, fx)


def videos(decoded: list[Array], rows: int) -> list[Array]:
    """Return what a decoder got, as ``[rows, frames, height, width, channels]``: one for each call,
    but for calls with a part of the frames, or of the rows, each."""
    if decoded[0].ndim == 4:
        frames = np.concatenate(decoded)
        return [np.moveaxis(frames.reshape(rows, -1, *frames.shape[1:]), 2, -1)]
    if len(decoded) == rows and all(len(video) == 1 for video in decoded):
        decoded = [np.concatenate(decoded)]
    if len(decoded[0]) > rows and decoded[0].shape[2] == 1:
        return videos([video[:, :, 0] for video in decoded], rows)  # layers, as pictures
    return [np.moveaxis(video, 1, -1) for video in decoded]


def one_hot_formats(channels: int, low: float, high: float) -> list[LatentFormat]:
    """Make formats that show three channels each, ``low`` as black and ``high`` as white."""
    rows = np.eye(channels, 3 * -(-channels // 3)).reshape(channels, -1, 3).swapaxes(0, 1)
    return [_format(factors, (0.0, 0.0, 0.0), (low, high)) for factors in rows]


def any_format(channels: int, low: float, high: float) -> LatentFormat:
    """Return a format with colours that mix all channels, and saturate nowhere."""
    factors = np.random.default_rng(3).uniform(-1, 1, (channels, 3))
    largest = np.abs(factors).sum(axis=0).max() * max(abs(low), abs(high))
    return _format(factors, (0.0, 0.0, 0.0), (-float(largest), float(largest)))


def _format(factors: Array, bias: tuple[float, ...], output_range: tuple[float, float]) -> Any:
    return LatentFormat(
        name="of the zoo",
        latent_channels=len(factors),
        spatial_scale=8,
        factors=tuple((float(r), float(g), float(b)) for r, g, b in factors),
        bias=bias,  # type: ignore[arg-type]
        output_range=output_range,
        source="made up",
    )


def strips(frames: Iterable[PreviewFrame], width: int) -> Array:
    """Return the strips of one step, of three channels each, as
    ``[rows, frames, height, width, channels]``."""
    pictures = [np.stack([np.asarray(image) for image in frame.images]) for frame in frames]
    whole = np.concatenate(pictures, axis=-1)
    rows, height, length, channels = whole.shape
    if length % width:
        raise ValueError(f"a strip is {length} cells wide, which are no frames of {width}")
    cells = whole.reshape(rows, height, length // width, width, channels)
    return cells.swapaxes(1, 2)


def agreement(shown: Array, decoded: Array, edge: int = 1) -> float:
    """Return the least correlation of any channel, where the shorter video is the most alike to a
    part of the longer; -1 for pictures of other sizes.

    Both are ``[rows, frames, height, width, channels]``. What is decoded may have frames of before
    (of a video that is made part by part), and what is denoised, frames that are not decoded (of a
    condition). With an ``edge``, each of the edge x edge cells of a token has a scale of its own.
    """
    frames = shown.shape[1], decoded.shape[1]
    count = min(frames)
    if (len(shown), *shown.shape[2:]) != (len(decoded), *decoded.shape[2:]):
        return -1.0
    alike = [
        _least(shown[:, i : i + count], decoded[:, j : j + count], edge)
        for i in range(frames[0] - count + 1)
        for j in range(frames[1] - count + 1)
    ]
    return max(alike)


def _least(shown: Array, decoded: Array, edge: int) -> float:
    """Return the least correlation over the channels, and the cells of a token."""
    parts = (
        (slice(None), slice(None), slice(p, None, edge), slice(q, None, edge), channel)
        for channel in range(decoded.shape[-1])
        for p in range(edge)
        for q in range(edge)
    )
    return min(_correlation(shown[part], decoded[part]) for part in parts)


def _correlation(a: Array, b: Array) -> float:
    if not np.isfinite(b).all() or a.std() == 0 or b.std() == 0:
        return -1.0
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def refusal(pipeline: Any) -> Shown | None:
    """Return what ``bind`` says of a preview of this pipeline, whatever its VAE; None if
    nothing."""
    try:
        bind(pipeline, Preview([], factors=any_format(4, -1, 1)))
    except UnsupportedPipelineError as error:
        return Shown("refused", str(error))
    return None


def bare_class(kind: type) -> Shown:
    """Return the same of a class that no entry builds, by an instance without any parts."""
    return refusal(kind.__new__(kind)) or Shown("not built", "nobody has, so far")


def measure(entry: Entry, fx: Framework, pipeline: Any, request: Request) -> Shown:
    """Measure one class with one request."""
    if (refused := refusal(pipeline)) is not None:
        return replace(refused, size=_offered(entry, fx, pipeline, request))
    add_decoder(entry.name, fx, pipeline)
    try:
        plain = run(entry, fx, pipeline, request)
        decoded = videos([x for _, x in plain.decoded], request.rows)
    except Exception as failure:
        return Shown("failed", f"{type(failure).__name__}: {failure}")
    about = {
        "size": " x ".join(map(str, decoded[-1].shape[:-1])),
        "judge": plain.decoded[0][0],
    }
    groups = 2 if entry.name in FRAMES_AS_CHANNELS else 1
    watched = Watched(groups * decoded[-1].shape[-1], plain.finals)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ours = run(entry, fx, pipeline, request, *watched.previews)
    except Exception as failure:
        return Shown("wrong", f"{type(failure).__name__}: {failure}", **about)
    why = next((str(w.message) for w in caught if "previews" in str(w.message)), "")
    why = why or _differs(plain, ours)
    if why.endswith("plain run") and fx.repeats_to:
        # The first run of a process may differ; this one must not.
        why = _differs(run(entry, fx, pipeline, request), ours)
    why = why or _frames_are_wrong(entry, pipeline, watched.usual, plain.calls, decoded[-1])
    if why:
        return Shown("wrong", why, **about)
    source = watched.usual[1].source
    edge = 2 if hasattr(getattr(pipeline, "vae", None), "bn") else 1
    skipped = CHANGED_LATER.get(entry.title, 0)
    correlation = watched.agreement([video[:, skipped:] for video in decoded], edge, skipped)
    if correlation < SAME:
        why = "what is shown is not where the decoder gets it"
    elif not watched.colours_agree():
        why = "a colour of all channels is not the sum of theirs"
    return Shown("wrong" if why else "right", why, correlation, source=source, **about)


def _offered(entry: Entry, fx: Framework, pipeline: Any, request: Request) -> str:
    """Return the shape of the latents that callbacks get at last; empty where they get none."""
    if "latents" not in getattr(pipeline, "_callback_tensor_inputs", ("latents",)):
        return ""
    seen: list[tuple[int, ...]] = []

    def callback(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append(tuple(tensors["latents"].shape))
        return tensors

    # What follows the loop is none of our business: some entries are not made to be decoded.
    with suppress(Exception):
        call = caller(entry, fx, pipeline, request)
        call(entry.arguments(fx, pipeline, request), callback)
    return " x ".join(map(str, seen[-1])) if seen else ""


class Watched:
    """``Watched`` holds the previews of one run, and what they showed.

    Args:
        channels: number of channels of the latents.
        finals: latents like those to be shown, which give the range of the colours.
    """

    def __init__(self, channels: int, finals: list[Array]) -> None:
        low = min(float(x.min()) for x in finals)
        high = max(float(x.max()) for x in finals)
        forms = one_hot_formats(channels, low, high)
        self.channels, self.low, self.high = channels, low, high
        self.form = any_format(channels, low, high)
        self.usual: list[PreviewFrame] = []
        self.split: list[list[PreviewFrame]] = [[] for _ in forms]
        self.previews = [
            Preview(self.usual, factors=self.form),
            *(
                Preview(frames, factors=form, frames="strip", source="noisy")
                for frames, form in zip(self.split, forms, strict=True)
            ),
        ]

    def agreement(self, decoded: list[Array], edge: int, skipped: int) -> float:
        """Return the least correlation with the videos that the decoder got, in order: each with
        what was shown at the end of one of the loops, and the last with what was shown last."""
        steps = self.split[0]
        ends = [i for i, frame in enumerate(steps) if frame.step + 1 == frame.num_timesteps]
        width, channels = decoded[-1].shape[3:]
        cells = [self._strip(i, width) for i in sorted({*ends, len(steps) - 1})]
        shown = [x[:, skipped:, ..., -channels:] for x in cells]
        found = [max(agreement(x, video, edge) for x in shown) for video in decoded]
        return min(*found, agreement(shown[-1], decoded[-1], edge))

    def last_agreement(self, decoded: Array) -> float:
        """Return the least correlation of what was shown last with this video."""
        return agreement(self._strip(-1, decoded.shape[3]), decoded)

    def colours_agree(self) -> bool:
        """Return whether the last usual preview has the colours that its format gives the channels,
        in the frame in the middle."""
        pictures = np.stack([np.asarray(image) for image in self.usual[-1].images])
        cells = self._strip(-1, pictures.shape[2])
        middle = cells[:, cells.shape[1] // 2]
        latents = self.low + (middle + 0.5) / 255 * (self.high - self.low)
        low, high = self.form.output_range
        expected = (latents @ np.array(self.form.factors) - low) / (high - low) * 255
        return float(np.abs(expected - (pictures + 0.5)).mean()) < NEAR

    def _strip(self, index: int, width: int) -> Array:
        frames = [frames[index] for frames in self.split]
        return strips(frames, width)[..., : self.channels]


def _differs(plain: Seen, ours: Seen) -> str:
    """Say why a run with previews is not the same as one without; "" if it is, to the last bit."""
    if plain.calls != ours.calls:
        return "with previews, the run has another number of steps"
    for name in ("finals", "output"):
        a, b = getattr(plain, name), getattr(ours, name)
        same = (
            x.shape == y.shape and x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True)
        )
        if not all(same):
            return f"with previews, the run's {name} differ from those of a plain run"
    return ""


def _frames_are_wrong(
    entry: Entry, pipeline: Any, frames: list[PreviewFrame], calls: int, decoded: Array
) -> str:
    """Say why the number of frames, their pictures' number or size, or their source is not
    right."""
    rows, _, height, width, _ = decoded.shape
    scheduler = pipeline.scheduler
    expected = calls // 2 + 1 if getattr(scheduler, "order", 1) == 2 else calls
    if len(frames) != expected:
        return f"{len(frames)} frames instead of {expected}"
    counts = {len(frame.images) for frame in frames}
    sizes = {image.size for frame in frames for image in frame.images}
    wanted = {(width, height)}
    if entry.name in GROWS:
        wanted = {(width >> stage, height >> stage) for stage in range(len(sizes))}
    if counts != {rows} or sizes != wanted or frames[-1].images[0].size != (width, height):
        return f"{counts} pictures of {sizes} instead of {rows} of {wanted}"
    kind = DenoisedEstimate.kind_of(scheduler) or "noisy"
    kind = "noisy" if entry.name in (*STEPS_COPIES, *DRAWS_NOISE) else kind
    if kind == "exact" and entry.around is not None and entry.around.adds_noise:
        kind = "estimate"
    # PNDM takes its first step twice, and keeps nothing of the second time; or its first three in
    # four parts each.
    takes = 1
    if type(scheduler).__name__ == "PNDMScheduler":
        takes = 2 if scheduler.config.skip_prk_steps else 12
    source = frames[takes].source
    if source != kind:
        return f"frames show {source!r}, with a scheduler that is {kind!r}"
    return ""
