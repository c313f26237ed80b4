"""Files that appear whole or not at all, whatever kills the writer."""

from __future__ import annotations

import os
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


def remove_temporaries(folder: Path) -> None:
    """Delete what killed writers left below `folder`; files of live processes stay."""
    for file in folder.rglob(f".*{TEMPORARY_SUFFIX}"):
        pid = file.name.removesuffix(TEMPORARY_SUFFIX).rpartition(".")[2]
        if not Path("/proc", pid).exists():
            file.unlink(missing_ok=True)
