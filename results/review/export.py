"""The page as a folder that opens from a file, without a server."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from results.review.content import (
    NO_COURSE,
    OutsideError,
    as_script,
    comparison_content,
    episode_content,
    is_inside,
    readable_records,
    run_content,
)
from results.review.server import PAGE, PAGE_FILES
from results.run_directory import RunDirectory
from results.trace import TraceError
from results.video import video_path

MARK = "exported.js"
"""Makes the page read scripts instead of asking a server, and so marks a folder as an export."""
VARIABLE = "reviewExport"


def export(runs: Sequence[Path], names: Sequence[str], folder: Path) -> int:
    """Write the page, its data and the videos there are into `folder`; returns the number of videos.

    Args:
        folder: new, empty, or an earlier export, which is replaced.

    Raises:
        ValueError: one of the runs is none, or the folder holds something else.
        OSError: it cannot be written.
    """
    _make_room(folder)
    (folder / "page").mkdir(parents=True)
    shutil.copyfile(PAGE / "index.html", folder / "index.html")
    for name in PAGE_FILES:
        shutil.copyfile(PAGE / name, folder / "page" / name)
    (folder / "page" / MARK).write_text(as_script(VARIABLE, "runs", list(names)))
    if len(runs) > 1:
        said = comparison_content([RunDirectory(path) for path in runs], names)
        (folder / "data").mkdir()
        (folder / "data" / "comparison.js").write_text(as_script("reviewData", "comparison", said))
    videos = 0
    for number, (path, name) in enumerate(zip(runs, names, strict=True)):
        run, into = RunDirectory(path), folder / "data" / str(number)
        into.mkdir(parents=True)
        content = run_content(run, name) | {"running": False}
        (into / "run.js").write_text(as_script("reviewData", f"{number}", content))
        for record in readable_records(run)[0]:
            episode_id = record.spec.episode_id
            try:
                course = episode_content(run, record)
            except (TraceError, OutsideError) as error:
                course = {"id": episode_id, "error": str(error), "steps": record.steps} | NO_COURSE
            (into / f"{_file_name(episode_id)}.js").write_text(
                as_script("reviewData", f"{number}/{episode_id}", course)
            )
            for policy_view in (False, True):
                video = video_path(episode_id, policy_view=policy_view)
                if is_inside(path, path / video):
                    (into / video).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path / video, into / video)
                    videos += 1
    return videos


def _file_name(episode_id: str) -> str:
    return episode_id.replace("/", "_")


def _make_room(folder: Path) -> None:
    if not folder.exists():
        return
    mark = folder / "page" / MARK
    if not folder.is_dir() or (any(os.scandir(folder)) and not (mark.is_file() and VARIABLE in mark.read_text())):
        raise ValueError(f"{folder} holds something else than an export; name a new folder")
    for name in ("index.html", "page", "data"):
        there = folder / name
        if there.is_dir():
            shutil.rmtree(there)
        else:
            there.unlink(missing_ok=True)
