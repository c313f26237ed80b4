"""Videos of episodes: which ones are worth rendering, the layout of a frame, and H.264 in an MP4 file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from results.files import temporary_path
from tasks.interface import CONTROL_HZ, EpisodeRecord, Outcome

VideoChoice = Literal["none", "some", "failures", "all"]
SMALLEST_PX, LARGEST_PX = 64, 2048
_SOME = {Outcome.TIMEOUT: 2, Outcome.SUCCESS: 1}
"""`some`: this many of each outcome, per task."""
_COLOURS = {Outcome.SUCCESS: (46, 160, 67), Outcome.TIMEOUT: (207, 62, 56)}
_LABELS = {Outcome.SUCCESS: "success", Outcome.TIMEOUT: "failure"}
_STRIP, _INK, _DIM = (22, 22, 24), (235, 235, 235), (165, 165, 170)
_GAP_PX = 2
_QUALITY = {"preset": "veryfast", "crf": "20", "mbtree": "0"}
"""x264's macroblock tree reads memory it never wrote where a frame's width is no multiple of 256, so that the same frames make other
bytes. Without it, crf 20 looks as 19 does with it, in somewhat larger files."""


def video_path(episode_id: str, *, policy_view: bool = False) -> str:
    """The video's path relative to the run directory."""
    suite, task, init, repeat = episode_id.split("/")
    return f"videos/{suite}/{task}/{init}-{repeat}{'.policy' if policy_view else ''}.mp4"


def choose_videos(records: Sequence[EpisodeRecord], choice: VideoChoice) -> list[EpisodeRecord]:
    """The episodes to render: of an error there is nothing to see.

    Args:
        choice: `some` takes the first two failures and the first success of every task, by episode id.
    """
    finished = sorted((r for r in records if r.outcome in _LABELS), key=lambda r: r.spec.episode_id)
    if choice == "none":
        return []
    if choice == "all":
        return finished
    if choice == "failures":
        return [record for record in finished if record.outcome is Outcome.TIMEOUT]
    chosen, counts = [], dict[tuple[str, Outcome], int]()
    for record in finished:
        key = (str(record.spec.task), record.outcome)
        counts[key] = counts.get(key, 0) + 1
        if counts[key] <= _SOME[record.outcome]:
            chosen.append(record)
    return chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """What the strip below the pictures says."""

    outcome: Outcome
    text: str
    """The instruction, or a note."""


class FrameLayout:
    """Cameras side by side, a strip with outcome, text and time below.

    Args:
        cameras: pictures per frame.
        size_px: height and width of each.
        caption: the same for all frames.
    """

    def __init__(self, *, cameras: int, size_px: int, caption: Caption) -> None:
        self._size_px = size_px
        strip_px = max(16, round(size_px * 0.085))
        self.width = _even(cameras * size_px + (cameras - 1) * _GAP_PX)
        self.height = _even(size_px + strip_px)
        self._font = ImageFont.load_default(size=max(9, round(strip_px * 0.58)))
        self._middle = size_px + (self.height - size_px) / 2
        self._background = self._draw_strip(caption)

    def _draw_strip(self, caption: Caption) -> Image.Image:
        canvas = Image.new("RGB", (self.width, self.height), _STRIP)
        draw = ImageDraw.Draw(canvas)
        label, colour = _LABELS[caption.outcome], _COLOURS[caption.outcome]
        label_end = self._text_px(label) + 12
        draw.rectangle((0, self._size_px, label_end, self.height), fill=colour)
        draw.text((6, self._middle), label, fill="white", font=self._font, anchor="lm")
        self._time_start = self.width - self._text_px("00.00 s") - 8
        text = self._shortened(caption.text, self._time_start - label_end - 16)
        draw.text((label_end + 8, self._middle), text, fill=_INK, font=self._font, anchor="lm")
        return canvas

    def _text_px(self, text: str) -> int:
        return round(self._font.getlength(text))

    def _shortened(self, text: str, room_px: int) -> str:
        if self._text_px(text) <= room_px:
            return text
        while text and self._text_px(text + "...") > room_px:
            text = text[:-1]
        return f"{text.rstrip()}..." if text else ""

    def frame(self, images: NDArray[np.uint8], time_s: float) -> NDArray[np.uint8]:
        """One frame.

        Args:
            images: uint8 (cameras, size_px, size_px, 3), rows from the top.
            time_s: since the policy's first action.

        Returns:
            uint8 (height, width, 3), both even.
        """
        canvas = self._background.copy()
        for row, image in enumerate(images):
            canvas.paste(Image.fromarray(np.ascontiguousarray(image)), (row * (self._size_px + _GAP_PX), 0))
        ImageDraw.Draw(canvas).text(
            (self.width - 6, self._middle), f"{time_s:.2f} s", fill=_DIM, font=self._font, anchor="rm"
        )
        return np.asarray(canvas)


def _even(pixels: int) -> int:
    """H.264 with 4:2:0 colour wants even sides."""
    return pixels + pixels % 2


def write_video(file: Path, frames: Iterable[NDArray[np.uint8]], *, width: int, height: int) -> None:
    """Encode frames, one per control step, at true speed (20 per second); the file appears whole or not at all.

    Args:
        frames: uint8 (height, width, 3), both even.

    Raises:
        OSError: the file cannot be written.
    """
    import av  # an encoder is wanted in few processes

    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(file)
    try:
        with av.open(str(temporary), mode="w", format="mp4", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("libx264", rate=CONTROL_HZ)
            stream.pix_fmt = "yuv420p"  # the one kind of H.264 that every browser plays
            stream.options = {**_QUALITY}
            stream.width, stream.height = width, height
            stream.codec_context.thread_count = 1  # many episodes are rendered at once
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
        with temporary.open("rb") as stream_on_disk:
            os.fsync(stream_on_disk.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
