"""Runs a command beside a training run: it yields the CPU to it and ends when it ends. `python beside.py COMMAND …`.

Started by its path, so that nothing but the standard library is imported before the command takes this process over.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

NICENESS = 19
PR_SET_PDEATHSIG = 1


def main() -> None:
    """Become the command."""
    parent = os.getppid()
    os.nice(NICENESS)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended meanwhile
            sys.exit(1)
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
