"""Merges the shards of a run into what one run would have written."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from results.manifest import RunManifest, differences, write_manifest
from results.run_directory import RunDirectory
from results.summary import write_summary
from results.tags import read_reviews, write_reviews
from results.video import video_path
from tasks.interface import EpisodeRecord
from tasks.plan import parse_shard

_PER_SHARD = ("shard", "planned_episodes")


class MergeError(ValueError):
    """The folders are not the shards of one run."""


def merge_shards(folders: Sequence[Path], target: Path) -> tuple[RunManifest, list[EpisodeRecord], float]:
    """Write the whole run to `target`: manifest, episodes, traces, videos and summary. The shards stay as they are.

    Args:
        folders: all shards of one run, in any order.
        target: a new or empty folder.

    Returns:
        The merged manifest, the episodes, and the duration of all shards together [s].

    Raises:
        MergeError: a shard is missing, named twice, belongs to another run or is no shard.
        RunDirectoryError: a shard is still running, or `target` cannot be written.
        RecordError: a shard's `episodes.jsonl` is damaged.
        TagError: a shard's `review.json` is.
        OSError: the disk is full.
    """
    folders = list({folder.resolve(): folder for folder in folders}.values())  # the same one twice is one
    with contextlib.ExitStack() as stack:
        shards = []
        for folder in folders:
            if not (folder / "manifest.json").is_file():
                raise MergeError(f"{folder} holds no run: there is no manifest.json in it")
            shards.append(RunDirectory.reserve(folder))
            stack.callback(shards[-1].release)
        shards = _in_order(shards)
        if target.exists() and any(target.iterdir()):
            raise MergeError(f"{target} is not empty; name a new folder with --output-dir, or remove it")
        merged = RunDirectory.reserve(target)
        stack.callback(merged.release)
        manifest = _merged_manifest([shard.manifest() for shard in shards])
        for shard in shards:
            for record in shard.records():
                _take_files(shard.path, target, record)
                merged.append(record)
        wall_s = sum(shard.log.wall_s() for shard in shards)
        reviews = {key: review for shard in shards for key, review in read_reviews(shard.path).items()}
        if reviews:
            write_reviews(target, reviews)
        merged.log.write("merged", shards=[str(shard.path.resolve()) for shard in shards], wall_s=wall_s)
        write_manifest(target / "manifest.json", manifest)  # last: half a merge is no run
        records = merged.records()
        write_summary(target, manifest, records, wall_s)
        return manifest, records, wall_s


def _in_order(shards: Sequence[RunDirectory]) -> list[RunDirectory]:
    """The shards 1/n … n/n of one run."""
    by_number: dict[int, RunDirectory] = {}
    first = shards[0].manifest()
    for shard in shards:
        manifest = shard.manifest()
        if not manifest.shard:
            raise MergeError(f"{shard.path} is a whole run, not made with --shard")
        number, count = parse_shard(manifest.shard)
        different = differences(first, manifest, ignore=_PER_SHARD)
        if count != parse_shard(first.shard)[1]:
            different = [f"number of shards: {first.shard} there, {manifest.shard} here"]
        if different:
            raise MergeError(
                f"{shard.path} and {shards[0].path} are not shards of one run. There is {shards[0].path}, here {shard.path}:"
                "\n  " + "\n  ".join(different)
            )
        if number in by_number:
            raise MergeError(f"{by_number[number].path} and {shard.path} are both shard {manifest.shard}")
        by_number[number] = shard
    _, count = parse_shard(first.shard)
    missing = [f"{number}/{count}" for number in range(1, count + 1) if number not in by_number]
    if missing:
        raise MergeError(f"shard {', '.join(missing)} is missing: name all {count} folders")
    return [by_number[number] for number in range(1, count + 1)]


def _merged_manifest(shards: Sequence[RunManifest]) -> RunManifest:
    planned: Counter[str] = Counter()
    for shard in shards:
        planned.update(shard.planned_episodes)
    return dataclasses.replace(
        shards[0],
        shard="",
        planned_episodes=dict(planned),
        machine="; ".join(dict.fromkeys(shard.machine for shard in shards)),
        started_utc=min(shard.started_utc for shard in shards),
    )


def _take_files(source: Path, target: Path, record: EpisodeRecord) -> None:
    """Link an episode's trace and videos, or copy them where links are impossible."""
    video = video_path(record.spec.episode_id)
    policy_view = video_path(record.spec.episode_id, policy_view=True)
    if record.trace and not (source / record.trace).is_file():
        raise MergeError(f"{source} has no trace of {record.spec.episode_id}; there should be a file {record.trace}")
    for name in (record.trace, video, policy_view):
        if not name or not (source / name).is_file():
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source / name, target / name)
        except OSError:
            shutil.copyfile(source / name, target / name)
