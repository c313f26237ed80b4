"""Files that appear whole or not at all, and lines that do, whatever kills the writer."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

TEMPORARY_SUFFIX = ".tmp"


def temporary_path(file: Path) -> Path:
    """Where this process writes `file` before it is complete: hidden, in the same folder."""
    return file.with_name(f".{file.name}.{os.getpid()}{TEMPORARY_SUFFIX}")


def write_atomically(file: Path, content: bytes) -> None:
    """Write, flush to disk, rename into place.

    Raises:
        OSError: the disk is full, or the folder cannot be written; `file` is as it was before.
    """
    temporary = temporary_path(file)
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(folder: Path, below: Sequence[str]) -> None:
    """Delete what killed writers left in `folder`, and in its sub-folders `below` at any depth; files of live processes stay."""
    found = [folder.glob(f".*{TEMPORARY_SUFFIX}"), *((folder / name).rglob(f".*{TEMPORARY_SUFFIX}") for name in below)]
    for file in itertools.chain(*found):
        pid = file.name.removesuffix(TEMPORARY_SUFFIX).rpartition(".")[2]
        if pid.isdigit() and not Path("/proc", pid).exists():
            with contextlib.suppress(OSError):  # it is in nobody's way
                file.unlink()


def append_line(file: Path, line: str) -> None:
    """Add one line; it is on disk when this returns.

    Raises:
        OSError: the disk is full; `file` is as it was before.
    """
    content = f"{line}\n".encode()
    with file.open("ab", buffering=0) as stream:
        before = stream.tell()
        try:
            if stream.write(content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(stream.fileno())
        except OSError:
            os.ftruncate(stream.fileno(), before)
            raise


def cut_unfinished_line(file: Path) -> None:
    """Remove what a kill left of a last line, so that the next one is not glued to it."""
    if file.is_file():
        content = file.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(file, whole)
