"""How an image lies in memory, and turning one convention into another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.interface import ImageConvention

_FLIPPED: dict[ImageConvention, tuple[bool, bool]] = {
    "raw": (False, False),
    "true_view": (True, False),
    "rotated_180": (True, True),
}
"""Whether rows and columns run against OpenGL's order."""


def convert_images(images: NDArray[np.uint8], given: ImageConvention, wanted: ImageConvention) -> NDArray[np.uint8]:
    """A view of images [..., H, W, 3] in another convention; no pixel is computed anew."""
    (rows_a, columns_a), (rows_b, columns_b) = _FLIPPED[given], _FLIPPED[wanted]
    if rows_a != rows_b:
        images = images[..., ::-1, :, :]
    if columns_a != columns_b:
        images = images[..., ::-1, :]
    return images
