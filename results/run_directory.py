"""A run's folder: `manifest.json` first, one line of `episodes.jsonl` per episode as it ends, traces, summaries."""

from __future__ import annotations

import os
from pathlib import Path

from results.manifest import RunManifest, read_manifest, write_manifest
from results.records import from_json, to_json
from tasks.interface import EpisodeRecord


class RunDirectoryError(ValueError):
    """The folder cannot hold a run, or holds another one."""


class RunDirectory:
    """One run on disk.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._episodes = path / "episodes.jsonl"

    @classmethod
    def reserve(cls, path: Path) -> RunDirectory:
        """Make the folder, and make sure it can be written and holds no run yet.

        Raises:
            RunDirectoryError: it cannot, or does.
        """
        if (path / "manifest.json").exists():
            count = len(cls(path).records())
            raise RunDirectoryError(
                f"{path} already holds a run with {count} episodes. Nothing was changed; choose another --output-dir."
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
            probe = path / f".write-test.{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise RunDirectoryError(
                f"cannot write to the output directory {path}: {error.strerror or error}. "
                "Choose another with --output-dir, or change its permissions."
            ) from error
        return cls(path)

    def begin(self, manifest: RunManifest) -> None:
        """Write the manifest, which makes the folder this run's.

        Raises:
            RunDirectoryError: another run began here in the meantime.
        """
        try:
            write_manifest(self.path / "manifest.json", manifest)
        except FileExistsError as error:
            raise RunDirectoryError(
                f"another run began in {self.path} just now; choose another --output-dir"
            ) from error

    def abandon(self) -> None:
        """Take the manifest away again: the run ended before its first episode, and the folder may be used for another."""
        assert not self.records()
        (self.path / "manifest.json").unlink(missing_ok=True)

    def append(self, record: EpisodeRecord) -> None:
        """Add one episode; it is on disk when this returns."""
        line = to_json(record) + "\n"
        with self._episodes.open("ab") as stream:
            stream.write(line.encode())
            stream.flush()
            os.fsync(stream.fileno())

    def manifest(self) -> RunManifest:
        """The run's manifest."""
        return read_manifest(self.path / "manifest.json")

    def records(self) -> list[EpisodeRecord]:
        """All episodes so far; a last line without a newline, which a kill may leave, is not yet one."""
        if not self._episodes.is_file():
            return []
        lines = self._episodes.read_text().split("\n")
        return [from_json(line) for line in lines[:-1] if line]
