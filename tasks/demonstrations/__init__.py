"""Demonstrations: LIBERO's HDF5 files."""

from tasks.demonstrations.hdf5 import (
    Demonstration,
    DemonstrationError,
    DemonstrationFile,
    DemonstrationStart,
    read_demonstration_start,
)

__all__ = ["Demonstration", "DemonstrationError", "DemonstrationFile", "DemonstrationStart", "read_demonstration_start"]
