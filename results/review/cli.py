"""`vla-review`: look at a run's episodes, or at those of two runs side by side."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import sys
import threading
import webbrowser
from dataclasses import dataclass
from pathlib import Path

import tyro
import uvicorn
from rich.console import Console

from results.review.export import export
from results.review.server import LOOPBACK_NAMES, ReviewServer
from results.run_directory import RunDirectory

EXIT_OK, EXIT_USAGE = 0, 2


@dataclass(frozen=True, kw_only=True)
class ReviewArguments:
    """`vla-review RUN` opens a page on this machine: all episodes as a grid, their videos with actions, gripper and queries, tags and
    notes for failures, all by keyboard. `vla-review RUN RUN2` shows the same episodes of two runs side by side, in step."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """One run directory, or two."""
    export: Path | None = None
    """Write the page as a folder that opens without a server, and exit."""
    host: str = "127.0.0.1"
    """Address to listen on. Anyone who reaches it sees the run and can tag: there is no password."""
    port: int = 8765
    """0: a free one."""
    browser: bool = True
    """Open the page in a browser."""


def main() -> None:
    """The console command."""
    sys.exit(run(tyro.cli(ReviewArguments, prog="vla-review"), out=Console(), errors=Console(stderr=True)))


def run(arguments: ReviewArguments, *, out: Console, errors: Console) -> int:
    """Serve until Ctrl-C, or export; returns the exit status."""
    try:
        if len(arguments.runs) not in (1, 2):
            raise ValueError(f"expected one run directory, or two, got {len(arguments.runs)}")
        for path in arguments.runs:
            RunDirectory(path).manifest()
        names = [path.resolve().name for path in arguments.runs]
        if len(set(names)) < len(names):
            names = [str(path) for path in arguments.runs]
        if arguments.export is not None:
            videos = export(arguments.runs, names, arguments.export)
            out.print(f"{arguments.export / 'index.html'}: {videos} videos", markup=False, soft_wrap=True)
            return EXIT_OK
        return _serve(arguments, names, out, errors)
    except (ValueError, OSError, OverflowError) as error:
        errors.print(f"vla-review: {error}", markup=False, soft_wrap=True)
        return EXIT_USAGE


def _serve(arguments: ReviewArguments, names: list[str], out: Console, errors: Console) -> int:
    loopback = is_loopback(arguments.host)
    family = socket.AF_INET6 if ":" in arguments.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((arguments.host, arguments.port))
    except OSError as error:
        listening.close()
        raise OSError(
            f"cannot listen on {arguments.host} port {arguments.port}: {error.strerror or error}. Choose another --host or --port; "
            "--port 0 takes a free one."
        ) from error
    host = f"[{arguments.host}]" if family == socket.AF_INET6 else arguments.host
    address = f"http://{host}:{listening.getsockname()[1]}/"
    out.print(f"{' and '.join(names)}: {address} (Ctrl-C ends it)", markup=False, soft_wrap=True)
    if not loopback:
        errors.print("vla-review: other machines can reach this address; there is no password", markup=False)
    listening.listen()
    if arguments.browser:  # a text browser would not return
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    app = ReviewServer(arguments.runs, names).app(answered_names(arguments.host))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listening])
    return EXIT_OK


def answered_names(host: str) -> list[str]:
    """What the server answers to when it listens on `host`: loopback's names and, if others can reach it, this machine's."""
    names = [*LOOPBACK_NAMES, host, f"[{host}]"]
    if not is_loopback(host):
        machine = socket.gethostname()
        names += [machine, socket.getfqdn()]
        with contextlib.suppress(OSError):
            names += [str(entry[4][0]) for entry in socket.getaddrinfo(machine, None)]
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            out.connect(("192.0.2.1", 9))  # sends nothing; tells by which address others see this machine
            names.append(str(out.getsockname()[0]))
    return list(dict.fromkeys(names))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    main()
