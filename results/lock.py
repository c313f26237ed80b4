"""One process per run directory: an advisory lock that the kernel releases however its holder ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from pathlib import Path

LOCK_FILE = "run.lock"


class LockedError(ValueError):
    """Another process works in the directory; the message names it."""


class DirectoryLock:
    """An exclusive lock on a folder, held until `release` or the end of the process.

    Args:
        folder: an existing folder.

    Raises:
        LockedError: another process holds it.
        OSError: the lock file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._stream = (folder / LOCK_FILE).open("a+")
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._stream.seek(0)
            holder = self._stream.read().strip() or "of unknown id"
            self._stream.close()
            raise LockedError(
                f"{folder} is in use by process {holder}. Nothing was changed. Wait for it to end, or stop it "
                "(what it finished is kept) and repeat the command."
            ) from None
        except OSError:
            self._stream.close()
            raise
        self._stream.truncate(0)
        self._stream.write(f"{os.getpid()} on {socket.gethostname()}\n")
        self._stream.flush()

    def release(self) -> None:
        """Let others in. The file stays: removing it would let two processes lock two files of one name."""
        if not self._stream.closed:
            with contextlib.suppress(OSError):  # a full disk; the next holder writes over it
                self._stream.truncate(0)
            self._stream.close()


def is_locked(folder: Path) -> bool:
    """Whether a process works in the folder; nothing is written."""
    try:
        with (folder / LOCK_FILE).open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
