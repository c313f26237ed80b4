"""`vla-serve`: a policy behind a websocket, in openpi's protocol."""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from harness.policies.factory import (
    NO_FACTORY,
    PolicyNameError,
    checkpoint_fingerprint,
    make_policy,
    policy_code_sha256,
)
from harness.serving.server import HEALTH_PATH, PolicyServer, server_metadata
from harness.terminal import Terminal
from tasks.interface import Policy

EXIT_OK, EXIT_USAGE = 0, 2


@dataclass(frozen=True, kw_only=True)
class ServeArguments:
    """Serve a policy in openpi's websocket protocol.

    `vla-eval --policy ws://HOST:PORT` evaluates it, from another environment or machine; so does any client of openpi's.
    """

    policy: str
    """vla-vggt with --checkpoint; a Python factory as module:name; or zero, random."""
    checkpoint: Path | None = None
    """A file or folder, handed to the policy's factory."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where the policy computes. auto: on a GPU if there is one."""
    language_model: str = ""
    """Hub id or folder of the checkpoint's language model. Default: as in training."""
    seed: int = 0
    """Seed of the policy's noise."""
    host: str = "127.0.0.1"
    """Address to listen on. Anyone who reaches it can use the policy: there is no password."""
    port: int = 8000
    """0: a free one."""
    max_message_mib: int = 16
    """Refuse larger requests."""


def main() -> None:
    """The console command."""
    terminal = Terminal(out=Console(), errors=Console(stderr=True))
    sys.exit(run(tyro.cli(ServeArguments, prog="vla-serve"), terminal))


def run(arguments: ServeArguments, terminal: Terminal) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit status."""
    try:
        if arguments.checkpoint is not None and not arguments.checkpoint.exists():
            raise FileNotFoundError(f"no checkpoint at {arguments.checkpoint}")
        policy = _policy(arguments)
        server = PolicyServer(
            policy,
            metadata=server_metadata(
                policy,
                name=arguments.policy,
                code_sha256=policy_code_sha256(arguments.policy),
                checkpoint_sha256=checkpoint_fingerprint(policy, arguments.checkpoint),
                seed=arguments.seed,
            ),
            max_message_bytes=_message_bytes(arguments.max_message_mib),
            on_error=lambda text: terminal.complain(f"vla-serve: {text}"),
        )
    except (ValueError, OSError) as error:
        terminal.complain(f"vla-serve: {error}")
        return EXIT_USAGE

    def on_ready(port: int) -> None:
        host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
        terminal.say(f"{arguments.policy} at ws://{host}:{port} (GET http://{host}:{port}{HEALTH_PATH})")
        if not _is_loopback(arguments.host):
            terminal.complain("vla-serve: other machines can reach this address; there is no password")

    try:
        asyncio.run(_serve(server, arguments, on_ready))
    except (OSError, OverflowError) as error:
        terminal.complain(
            f"vla-serve: cannot listen on {arguments.host} port {arguments.port}: {error}. Choose another --host or --port."
        )
        return EXIT_USAGE
    return EXIT_OK


def _policy(arguments: ServeArguments) -> Policy:
    if arguments.policy == "expert" or arguments.policy.startswith(NO_FACTORY):
        raise PolicyNameError(
            f"--policy {arguments.policy} cannot be served: the expert sees the simulator's state, a replay belongs to its "
            "run, a server is one already. Name a factory as module:name."
        )
    return make_policy(
        arguments.policy,
        checkpoint=arguments.checkpoint,
        seed=arguments.seed,
        device=arguments.device,
        language_model=arguments.language_model,
    )


def _message_bytes(mebibytes: int) -> int:
    if mebibytes < 1:
        raise ValueError(f"--max-message-mib: expected at least 1, got {mebibytes}")
    return mebibytes * 2**20


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _serve(server: PolicyServer, arguments: ServeArguments, on_ready: object) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await server.run(arguments.host, arguments.port, on_ready, stop)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
