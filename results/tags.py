"""What people saw in a run's episodes: tags of a fixed taxonomy and notes, in `review.json` beside the run."""

from __future__ import annotations

import fcntl
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from results.files import write_atomically

TAGS = (
    "missed grasp",
    "dropped",
    "wrong object",
    "wrong place",
    "collision",
    "stuck",
    "timeout near goal",
    "other",
)
"""Why an episode failed; several may hold."""
FILE = "review.json"
LOCK_FILE = ".review.lock"
LONGEST_NOTE = 4000
"""Characters."""


class TagError(ValueError):
    """A tag is unknown, a note too long, or the file is damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeReview:
    """What somebody said of one episode."""

    tags: tuple[str, ...]
    """In the taxonomy's order."""
    note: str


def check_review(tags: object, note: object) -> EpisodeReview:
    """A review from outside.

    Raises:
        TagError: it is none.
    """
    if not isinstance(tags, list | tuple) or not all(tag in TAGS for tag in tags):
        raise TagError(f"expected tags out of {', '.join(TAGS)}, got {tags!r}")
    if not isinstance(note, str) or len(note) > LONGEST_NOTE or not _is_text(note):
        raise TagError(f"expected a note of at most {LONGEST_NOTE} characters")
    return EpisodeReview(tags=tuple(tag for tag in TAGS if tag in tags), note=note)


def read_reviews(run: Path) -> dict[str, EpisodeReview]:
    """Episode id → review; empty where nobody said anything.

    Raises:
        TagError: the file is damaged; the message names it.
    """
    file = run / FILE
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text())
        return {episode_id: check_review(said["tags"], said["note"]) for episode_id, said in content.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TagError(f"{file} is damaged: {error}. Mend or remove it.") from error


def write_review(run: Path, episode_id: str, review: EpisodeReview) -> None:
    """Set what is said of an episode; an empty review takes it back.

    Raises:
        TagError: the file is damaged.
        OSError: it cannot be written; it is as it was.
    """
    write_reviews(run, {episode_id: review})


def write_reviews(run: Path, said: Mapping[str, EpisodeReview]) -> None:
    """`write_review` for several episodes. Whoever else writes waits.

    Raises:
        TagError: the file is damaged.
        OSError: it cannot be written; it is as it was.
    """
    with (run / LOCK_FILE).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed
        reviews = {
            key: review for key, review in (read_reviews(run) | dict(said)).items() if review.tags or review.note
        }
        content = {key: {"tags": list(review.tags), "note": review.note} for key, review in sorted(reviews.items())}
        write_atomically(run / FILE, (json.dumps(content, indent=1) + "\n").encode())


def _is_text(note: str) -> bool:
    """Whether it can be written: half of a surrogate pair cannot."""
    try:
        note.encode()
    except UnicodeEncodeError:
        return False
    return True


def count_tags(reviews: Mapping[str, EpisodeReview]) -> dict[str, int]:
    """Tag → episodes, the most frequent first."""
    counts = Counter(tag for review in reviews.values() for tag in review.tags)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], TAGS.index(item[0]))))
