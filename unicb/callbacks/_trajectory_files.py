"""Write files of latents step by step, without holding them all: ``.npz`` and ``.safetensors``.

Latents are appended to a temporary file beside the final one. Both formats start with a header that
has the number of steps, so when the run is over, the header is written, the latents are copied
behind it, and the file gets its final name. safetensors files are written by hand, because its own
functions need all tensors at once: 8 bytes with the length of a JSON header, the header, the
tensors' bytes (github.com/huggingface/safetensors).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[Any]

_LATENTS, _STEPS, _TIMESTEPS, _SIGMAS, _COUNT = (
    *("latents", "steps", "timesteps", "sigmas", "num_timesteps"),
)
_SAFETENSORS_NAMES = {"float16": "F16", "float32": "F32", "float64": "F64", "int64": "I64"}
_DTYPES = {name: dtype for dtype, name in _SAFETENSORS_NAMES.items()}


@dataclass(frozen=True, eq=False)  # comparing arrays gives no truth value
class RecordedLatents:
    """``RecordedLatents`` holds a run's latents, as :class:`unicb.callbacks.trajectory.Trajectory`
    wrote them.

    An object equals only itself; compare its arrays instead.

    Attributes:
        latents: the latents after the n recorded steps: ``[n, *shape]``, float16, float32 or
            float64 (bfloat16 widened to float32).
        steps: index of each recorded step, from 0: ``[n]`` int64.
        timesteps: the scheduler's timestep of each: ``[n]`` float64.
        sigmas: the noise level of each step's latents, from the scheduler's ``sigmas``: ``[n]``
            float64; NaN if the scheduler has none.
        num_timesteps: number of steps that the run was to have.
    """

    latents: _Array
    steps: npt.NDArray[np.int64]
    timesteps: npt.NDArray[np.float64]
    sigmas: npt.NDArray[np.float64]
    num_timesteps: int


class TrajectoryFile:
    """Write one run's file, step by step.

    Args:
        path: where to write; ends in .npz or .safetensors. Missing folders are made.

    Raises:
        OSError: the folder cannot be made or written to.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._steps: list[tuple[int, float, float]] = []
        self._first: _Array | None = None
        self._num_timesteps = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._raw_path = path.with_name(f".{os.urandom(8).hex()}.tmp")
        self._raw = open(self._raw_path, "x+b")  # noqa: SIM115 - close() closes it

    def append(
        self, index: int, num_timesteps: int, timestep: float, sigma: float, latents: _Array
    ) -> None:
        """Add a step.

        Raises:
            OSError: the disk is full, or cannot be written to any more.
            ValueError: the latents differ in shape or dtype from those of the first step.
        """
        if self._first is None:
            self._first = latents[:0].copy()
            self._shape, self._dtype = latents.shape, latents.dtype
        if (latents.shape, latents.dtype) != (self._shape, self._dtype):
            raise ValueError(
                f"latents became {latents.shape} {latents.dtype} at step {index}, and a file holds "
                f"one kind: {self._shape} {self._dtype}"
            )
        # Latents written only in part are not counted, and the next append overwrites them.
        self._raw.seek(len(self._steps) * latents.nbytes)
        self._raw.write(np.ascontiguousarray(latents).data)
        self._steps.append((index, timestep, sigma))
        self._num_timesteps = num_timesteps

    def close(self) -> None:
        """Write the final file, with the steps appended so far; without any step, there is no file.

        Raises:
            OSError: the disk is full, or cannot be written to any more. An earlier file of this
                name stays.
        """
        part = self._path.with_name(f".{os.urandom(8).hex()}.tmp")
        try:
            if self._steps:
                self._raw.flush()
                _WRITERS[self._path.suffix.lower()](part, self._small(), self._described(), self)
                os.replace(part, self._path)
        finally:
            self._raw.close()
            for path in (part, self._raw_path):
                with contextlib.suppress(OSError):
                    path.unlink()

    def copy_to(self, file: IO[bytes]) -> None:
        """Copy the bytes of all latents to an open file."""
        self._raw.seek(0)
        self._raw.truncate(len(self._steps) * math.prod(self._shape) * self._dtype.itemsize)
        shutil.copyfileobj(self._raw, file, 1 << 20)

    def _described(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        return (len(self._steps), *self._shape), self._dtype

    def _small(self) -> dict[str, _Array]:
        """Return all arrays of the file but the latents."""
        indices, timesteps, sigmas = zip(*self._steps, strict=True)
        return {
            _STEPS: np.array(indices, np.int64),
            _TIMESTEPS: np.array(timesteps, np.float64),
            _SIGMAS: np.array(sigmas, np.float64),
            _COUNT: np.array([self._num_timesteps], np.int64),
        }


_Described = tuple[tuple[int, ...], np.dtype[Any]]


def _write_npz(
    path: Path, small: Mapping[str, _Array], latents: _Described, source: TrajectoryFile
) -> None:
    shape, dtype = latents
    header = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": shape,
    }
    with zipfile.ZipFile(path, "x", zipfile.ZIP_STORED) as archive:
        for name, array in small.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        with archive.open(f"{_LATENTS}.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, header)
            source.copy_to(member)


def _write_safetensors(
    path: Path, small: Mapping[str, _Array], latents: _Described, source: TrajectoryFile
) -> None:
    shape, dtype = latents
    kinds = {name: (array.shape, array.dtype) for name, array in small.items()}
    kinds[_LATENTS] = shape, dtype
    header: dict[str, Any] = {}
    start = 0
    for name, (lengths, kind) in kinds.items():
        end = start + math.prod(lengths) * kind.itemsize
        header[name] = {
            "dtype": _SAFETENSORS_NAMES[kind.name],
            "shape": list(lengths),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "xb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in small.values():
            file.write(array.astype(array.dtype.newbyteorder("<")).tobytes())
        source.copy_to(file)


_WRITERS: Mapping[str, Callable[[Path, Mapping[str, _Array], _Described, TrajectoryFile], None]] = {
    ".npz": _write_npz,
    ".safetensors": _write_safetensors,
}

#: Suffixes of the formats that can be written.
SUFFIXES = tuple(_WRITERS)


def load_trajectory(path: str | os.PathLike[str]) -> RecordedLatents:
    """Read a file that a Trajectory wrote.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file was not written by a Trajectory.

    Example:
        >>> image = bind(pipe, Trajectory("run.npz", every=5))("a red star")[0]
        >>> run = load_trajectory("run.npz")
        >>> run.latents.shape, run.steps.tolist()
        ((3, 1, 4, 8, 8), [0, 5, 9])
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"a trajectory ends in {' or '.join(SUFFIXES)}, not {path.suffix!r}")
    try:
        found = _read_npz(path) if path.suffix.lower() == ".npz" else _read_safetensors(path)
        return RecordedLatents(
            found[_LATENTS],
            found[_STEPS],
            found[_TIMESTEPS],
            found[_SIGMAS],
            int(found[_COUNT][0]),
        )
    except (KeyError, IndexError, TypeError, ValueError, zipfile.BadZipFile, struct.error) as error:
        raise ValueError(
            f"{str(path)!r} is no trajectory ({type(error).__name__}: {error}); load_trajectory "
            "reads what Trajectory wrote"
        ) from error


def _read_npz(path: Path) -> dict[str, _Array]:
    with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _read_safetensors(path: Path) -> dict[str, _Array]:
    found: dict[str, _Array] = {}
    size = path.stat().st_size
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > size - 8:
            raise ValueError(f"its header would be {length} bytes long, the file has {size}")
        header = json.loads(file.read(length))
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            start, end = entry["data_offsets"]
            dtype = np.dtype(_DTYPES[entry["dtype"]]).newbyteorder("<")
            file.seek(8 + length + start)
            data = file.read(end - start)
            found[name] = np.frombuffer(data, dtype).reshape(entry["shape"])
    return found
