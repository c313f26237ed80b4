"""Demonstrations: LIBERO's HDF5 files, robomimic's, and decoded sets."""

from tasks.demonstrations.episodes import Episode, EpisodeReader
from tasks.demonstrations.hdf5 import (
    Demonstration,
    DemonstrationError,
    DemonstrationFile,
    DemonstrationStart,
    read_demonstration_start,
)
from tasks.demonstrations.selection import DemonstrationSource, UnnamedTaskWarning, select_demonstrations

__all__ = [
    "Demonstration",
    "DemonstrationError",
    "DemonstrationFile",
    "DemonstrationSource",
    "DemonstrationStart",
    "Episode",
    "EpisodeReader",
    "UnnamedTaskWarning",
    "read_demonstration_start",
    "select_demonstrations",
]
