"""Trajectory: every step's latents, in a file that is whole however the run ends."""

from __future__ import annotations

import json
import struct
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unicb import Interrupt, UnsupportedPipelineError, bind
from unicb.callbacks import _trajectory_files, trajectory
from unicb.callbacks.trajectory import RecordedLatents, Trajectory, load_trajectory
from unicb_numpy.pipelines import ToyPipeline

SUFFIXES = [".npz", ".safetensors"]


class Keep:
    """The latents and timesteps of every step, as a plain function would keep them."""

    def __init__(self) -> None:
        self.latents: list[Any] = []
        self.timesteps: list[float] = []

    def __call__(self, pipeline: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> None:
        self.latents.append(tensors["latents"].data.copy())
        self.timesteps.append(float(timestep))


def check(found: RecordedLatents, keep: Keep, steps: list[int], num_timesteps: int = 10) -> None:
    np.testing.assert_array_equal(found.latents, np.stack([keep.latents[i] for i in steps]))
    assert found.latents.dtype == keep.latents[0].dtype
    assert found.steps.tolist() == steps
    assert found.timesteps.tolist() == [keep.timesteps[i] for i in steps]
    assert found.num_timesteps == num_timesteps


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_every_step(tmp_path: Path, suffix: str, dtype: str) -> None:
    pipe, keep, path = ToyPipeline(dtype=dtype), Keep(), tmp_path / "deep" / f"run{suffix}"
    pipe(["a", "b"], **bind(pipe, keep, Trajectory(path)))
    found = load_trajectory(path)
    check(found, keep, list(range(10)))
    np.testing.assert_allclose(found.sigmas, 1 - (found.steps + 1) / 10, atol=1e-15)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("every", "steps"), [(3, [0, 3, 6, 9]), (4, [0, 4, 8, 9]), (99, [0, 9])])
def test_every(
    pipe: ToyPipeline, tmp_path: Path, suffix: str, every: int, steps: list[int]
) -> None:
    keep, path = Keep(), tmp_path / f"run{suffix}"
    pipe("x", **bind(pipe, keep, Trajectory(str(path), every)))
    check(load_trajectory(path), keep, steps)


def test_numpy_reads_it(pipe: ToyPipeline, tmp_path: Path) -> None:
    keep, path = Keep(), tmp_path / "run.npz"
    pipe("x", **bind(pipe, keep, Trajectory(path)))
    with np.load(path) as file:
        assert set(file.files) == {"latents", "steps", "timesteps", "sigmas", "num_timesteps"}
        np.testing.assert_array_equal(file["latents"], np.stack(keep.latents))


def test_recordings_are_compared_as_objects(pipe: ToyPipeline, tmp_path: Path) -> None:
    """Their arrays have no truth value."""
    path = tmp_path / "run.npz"
    pipe("x", **bind(pipe, Trajectory(path)))
    found = load_trajectory(path)
    assert found == found
    assert found != load_trajectory(path)


def test_safetensors_reads_it(pipe: ToyPipeline, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    keep, path = Keep(), tmp_path / "run.safetensors"
    pipe("x", **bind(pipe, keep, Trajectory(path)))
    file = load_file(path)
    assert set(file) == {"latents", "steps", "timesteps", "sigmas", "num_timesteps"}
    np.testing.assert_array_equal(file["latents"], np.stack(keep.latents))
    assert file["steps"].tolist() == list(range(10))


def test_safetensors_by_the_letter(pipe: ToyPipeline, tmp_path: Path) -> None:
    """As its specification says: offsets without holes, up to the end of the file."""
    path = tmp_path / "run.safetensors"
    pipe("x", **bind(pipe, Trajectory(path)))
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    offsets = sorted(entry["data_offsets"] for entry in header.values())
    assert [end for _, end in offsets[:-1]] == [start for start, _ in offsets[1:]]
    assert (offsets[0][0], offsets[-1][1]) == (0, len(data) - 8 - length)
    assert header["latents"]["shape"] == [10, 1, 4, 8, 8]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_interrupted(pipe: ToyPipeline, tmp_path: Path, suffix: str) -> None:
    keep, path = Keep(), tmp_path / f"run{suffix}"
    pipe("x", **bind(pipe, keep, Interrupt(4), Trajectory(path)))
    check(load_trajectory(path), keep, [0, 1, 2, 3, 4])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_failed(pipe: ToyPipeline, tmp_path: Path, suffix: str) -> None:
    def fail(pipeline: Any, index: int, timestep: Any, tensors: Any) -> None:
        if index == 3:
            raise RuntimeError("no")

    keep, path = Keep(), tmp_path / f"run{suffix}"
    with pytest.raises(RuntimeError, match="no"):
        pipe("x", **bind(pipe, keep, Trajectory(path), fail))
    check(load_trajectory(path), keep, [0, 1, 2, 3])
    assert list(tmp_path.iterdir()) == [path]


def test_the_loop_fails(pipe: ToyPipeline, tmp_path: Path) -> None:
    def step(*arguments: Any) -> Any:
        if arguments[1] < 600:
            raise RuntimeError("no")
        return whole(*arguments)

    whole, pipe.scheduler.step = pipe.scheduler.step, step  # type: ignore[method-assign]
    keep, path = Keep(), tmp_path / "run.npz"
    with pytest.raises(RuntimeError, match="no"), bind(pipe, keep, Trajectory(path)) as callbacks:
        pipe("x", **callbacks)
    check(load_trajectory(path), keep, [0, 1, 2, 3, 4])


def test_one_run_overwrites_the_other(pipe: ToyPipeline, tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    callbacks = bind(pipe, Trajectory(path))
    pipe("x", **callbacks)
    pipe("x", num_inference_steps=4, **callbacks)
    assert load_trajectory(path).num_timesteps == 4


def test_a_file_for_each_run(pipe: ToyPipeline, tmp_path: Path) -> None:
    callbacks = bind(pipe, Trajectory(tmp_path / "run-{run:02d}.npz"))
    for steps in (3, 5):
        pipe("x", num_inference_steps=steps, **callbacks)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["run-00.npz", "run-01.npz"]
    assert [load_trajectory(tmp_path / name).num_timesteps for name in names] == [3, 5]


def test_runs_at_the_same_time(tmp_path: Path) -> None:
    """One Trajectory in two threads: each run has its own file, with its own latents."""
    recorder = Trajectory(tmp_path / "run-{run}.npz")
    meet = threading.Barrier(2, timeout=30)
    keeps = [Keep(), Keep()]

    def generate(which: int) -> None:
        pipe = ToyPipeline()

        def wait(*_: Any) -> None:
            meet.wait()

        callbacks = bind(pipe, wait, keeps[which], recorder)
        pipe("x", seed=which, num_inference_steps=5, **callbacks)

    threads = [threading.Thread(target=generate, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    files = [load_trajectory(tmp_path / f"run-{i}.npz") for i in range(2)]
    first = 0 if np.array_equal(files[0].latents[0], keeps[0].latents[0]) else 1
    check(files[0], keeps[first], [0, 1, 2, 3, 4], 5)
    check(files[1], keeps[1 - first], [0, 1, 2, 3, 4], 5)


def test_the_run_is_not_changed(pipe: ToyPipeline, tmp_path: Path) -> None:
    plain = pipe("x", output_type="latent")
    recorded = pipe("x", output_type="latent", **bind(pipe, Trajectory(tmp_path / "run.npz")))
    np.testing.assert_array_equal(plain, recorded)


def test_few_wait(pipe: ToyPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk is slow, the run waits; what is in memory has a bound, and none is lost."""
    full, too_many = threading.Event(), threading.Event()
    seen: list[bool] = []
    append = _trajectory_files.TrajectoryFile.append

    def slow(self: Any, index: int, *rest: Any) -> None:
        if index == 0:
            seen.extend([full.wait(30), too_many.wait(0.2)])
        append(self, index, *rest)

    def note(pipeline: Any, index: int, timestep: Any, tensors: Any) -> None:
        # The step after those that may wait gets as far as here, and no further.
        if index == trajectory._WAITING:
            full.set()
        if index == trajectory._WAITING + 1:
            too_many.set()

    monkeypatch.setattr(_trajectory_files.TrajectoryFile, "append", slow)
    path, keep = tmp_path / "run.npz", Keep()
    pipe("x", num_inference_steps=30, **bind(pipe, keep, note, Trajectory(path)))
    assert seen == [True, False]
    check(load_trajectory(path), keep, list(range(30)), 30)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_disk_full(
    pipe: ToyPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / f"run{suffix}"
    path.write_text("before")
    callbacks = bind(pipe, Trajectory(path))
    monkeypatch.setattr(_trajectory_files.TrajectoryFile, "copy_to", full)
    with pytest.warns(RuntimeWarning, match=r"not written .* any further: OSError: .*No space"):
        pipe("x", **callbacks)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_latents_of_another_shape(tmp_path: Path) -> None:
    first = np.zeros((1, 4, 8, 8), np.float32)
    file = _trajectory_files.TrajectoryFile(tmp_path / "run.npz")
    file.append(0, 2, 1.0, 0.5, first)
    with pytest.raises(ValueError, match=r"became \(1, 4, 4, 4\) float32 at step 1"):
        file.append(1, 2, 0.5, 0.0, first[:, :, :4, :4])
    file.close()
    assert load_trajectory(tmp_path / "run.npz").steps.tolist() == [0]


@pytest.mark.parametrize(
    ("to", "error"),
    [
        ("run.png", ValueError),
        ("run", ValueError),
        ("", ValueError),
        ("{step}.npz", ValueError),
        ("{}.npz", ValueError),
        ("{run.npz", ValueError),
        (3, TypeError),
        (None, TypeError),
    ],
)
def test_wrong_path(to: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Trajectory(to)


def test_every_is_a_number() -> None:
    with pytest.raises(ValueError, match="every must be at least 1"):
        Trajectory("run.npz", every=0)


def test_cannot_be_written(pipe: ToyPipeline, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match="file"):
        bind(pipe, Trajectory(tmp_path / "file" / "run.npz"))
    (tmp_path / "run.npz").mkdir()
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        bind(pipe, Trajectory(tmp_path / "run.npz"))


def test_refused_without_latents(tmp_path: Path) -> None:
    class NoLatents(ToyPipeline):
        _callback_tensor_inputs = ("prompt_embeds",)  # type: ignore[assignment]

    with pytest.raises(UnsupportedPipelineError, match="no tensor called 'latents'"):
        bind(NoLatents(), Trajectory(tmp_path / "run.npz"))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"not one at all", struct.pack("<Q", 2) + b"{}"])
def test_no_trajectory(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"run{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is no trajectory"):
        load_trajectory(path)


def test_load_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_trajectory(tmp_path / "run.npz")
    with pytest.raises(ValueError, match=r"ends in \.npz or \.safetensors"):
        load_trajectory(tmp_path / "run.png")
