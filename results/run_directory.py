"""A run's folder: `manifest.json` first, one line of `episodes.jsonl` per episode as it ends, traces, videos, summaries.

It is readable at any moment, also while the run goes on and after a kill; and the same command resumes it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from results.files import append_line, cut_unfinished_line, remove_temporaries
from results.lock import DirectoryLock, LockedError
from results.manifest import RunManifest, differences, read_manifest, write_manifest
from results.records import RecordError, from_json, to_json
from results.run_log import RunLog
from results.video import video_path
from tasks.interface import EpisodeRecord


class RunDirectoryError(ValueError):
    """The folder cannot hold a run, or holds another one."""


class RunDirectory:
    """One run on disk. Reading needs nothing; to write, `reserve` the folder and `begin` the run.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = RunLog(path)
        self._episodes = path / "episodes.jsonl"
        self._lock: DirectoryLock | None = None

    @classmethod
    def reserve(cls, path: Path) -> RunDirectory:
        """Make the folder if need be, and lock it against other processes until `release`.

        Raises:
            RunDirectoryError: it cannot be written, or another process works in it.
        """
        run = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            run._lock = DirectoryLock(path)
        except LockedError as error:
            raise RunDirectoryError(str(error)) from None
        except OSError as error:
            raise RunDirectoryError(
                f"cannot write to the output directory {path}: {error.strerror or error}. "
                "Choose another with --output-dir, or change its permissions."
            ) from error
        return run

    def release(self) -> None:
        """Let other processes in."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def remove_temporaries(self) -> None:
        """Delete the half-written files of workers that are dead."""
        remove_temporaries(self.path, below=("traces", "videos"))

    def begin(self, manifest: RunManifest) -> None:
        """Make the folder this run's, or go on with the run it holds.

        Raises:
            RunDirectoryError: it holds episodes of a run whose results `manifest` would not reproduce.
        """
        assert self._lock is not None, "reserve the folder first"
        last_sign_s = self._episodes.stat().st_mtime if self._episodes.is_file() else 0.0
        records = self.records()
        if records:
            different = differences(self.manifest(), manifest)
            if different:
                raise RunDirectoryError(
                    f"{self.path} holds {len(records)} episodes of another run; nothing was changed. What differs:\n  "
                    + "\n  ".join(different)
                    + "\nRepeat the command that began it, or choose another --output-dir."
                )
        for file in (self._episodes, self.log.file):
            cut_unfinished_line(file)
        self.remove_temporaries()
        if not records:
            write_manifest(self.path / "manifest.json", manifest)
        self.log.close_killed_session(last_sign_s)

    def abandon(self) -> None:
        """Take everything away again: the run ended before its first episode, and the folder may be used for another."""
        assert not self.records()
        for name in ("manifest.json", "log.jsonl", "summary.json", "summary.csv"):
            (self.path / name).unlink(missing_ok=True)

    def append(self, record: EpisodeRecord) -> None:
        """Add one episode; it is on disk when this returns.

        Raises:
            OSError: the disk is full; the file is as it was before.
        """
        append_line(self._episodes, to_json(record))

    def manifest(self) -> RunManifest:
        """The run's manifest.

        Raises:
            ValueError: there is none.
        """
        return read_manifest(self.path / "manifest.json")

    def records(self) -> list[EpisodeRecord]:
        """The episodes so far, one per id, in the order they ended.

        Of an episode that was run again after an error, the last result counts. A last line without a newline, which
        a kill may leave, is not yet a record. `video` is set where there is one.

        Raises:
            RecordError: a line is damaged; the message names it.
        """
        records: dict[str, EpisodeRecord] = {}
        if not self._episodes.is_file():
            return []
        for number, line in enumerate(self._episodes.read_text(errors="replace").split("\n")[:-1], start=1):
            try:
                record = from_json(line)
            except RecordError as error:
                raise RecordError(
                    f"{self._episodes} line {number} is damaged: {error}\n"
                    "Remove the line; its episode will be run again when the command is repeated."
                ) from error
            records.pop(record.spec.episode_id, None)
            records[record.spec.episode_id] = self._with_video(record)
        return list(records.values())

    def _with_video(self, record: EpisodeRecord) -> EpisodeRecord:
        video = video_path(record.spec.episode_id)
        return dataclasses.replace(record, video=video) if (self.path / video).is_file() else record
