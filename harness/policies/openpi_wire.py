"""openpi's wire format: msgpack maps, arrays as maps with byte-string keys; and the names of a LIBERO observation's parts.

Source: openpi_client/msgpack_numpy.py and examples/libero/main.py of github.com/Physical-Intelligence/openpi. Nothing is
unpickled; arrays of Python objects are refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.interface import ImageConvention

IMAGE_KEYS = {"agentview": "observation/image", "robot0_eye_in_hand": "observation/wrist_image"}
"""Camera → key of its image, uint8 (H, W, 3)."""
STATE_KEY = "observation/state"
"""float (8,); see `proprio` in `tasks.interface`."""
PROMPT_KEY = "prompt"
ACTIONS_KEY = "actions"
"""In the reply: float (T, 7)."""
IMAGE_CONVENTION: ImageConvention = "rotated_180"
IMAGE_PX = 224

EXTENSION_KEY = "vla_serve"
"""In the metadata of a `vla-serve`: it takes images of any size, and three more keys."""
CLIENT_KEY, EPISODE_KEY, STEP_KEY = "client", "episode_id", "step"
"""A name of the client's own choosing, the same on all its connections; the episode; the control step, 0 to begin."""

_PLAIN_KINDS = "biuf"
_MOST_ENTRIES = 4096
"""Of a list or map; arrays are not lists."""


class WireError(ValueError):
    """A frame is not what the protocol says."""


def pack(content: Mapping[str, Any]) -> bytes:
    """One binary frame.

    Raises:
        WireError: the content has arrays of other things than numbers, or values msgpack does not know.
    """
    try:
        return msgpack.packb(content, default=_pack_array)
    except TypeError as error:
        raise WireError(f"cannot be sent: {error}") from error


def unpack(frame: bytes) -> dict[Any, Any]:
    """The map in a binary frame; its arrays are read-only.

    Raises:
        WireError: the frame is damaged, holds no map, or an array whose bytes do not fit its shape.
    """
    try:
        content = msgpack.unpackb(
            frame, object_hook=_unpack_array, max_array_len=_MOST_ENTRIES, max_map_len=_MOST_ENTRIES
        )
    except WireError:
        raise
    except Exception as error:  # msgpack has a dozen, most of them ValueErrors
        raise WireError(f"not a msgpack frame: {type(error).__name__}: {error}") from error
    if not isinstance(content, dict):
        raise WireError(f"expected a map, got {type(content).__name__}")
    return content


def _pack_array(value: object) -> object:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind not in _PLAIN_KINDS:
        raise WireError(f"cannot send an array of dtype {value.dtype}")
    if isinstance(value, np.ndarray):
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"a {type(value).__name__}")


def _unpack_array(value: dict[Any, Any]) -> object:
    if b"__npgeneric__" in value:
        return _dtype(value).type(value.get(b"data"))
    if b"__ndarray__" not in value:
        return value
    dtype, shape, data = _dtype(value), value.get(b"shape"), value.get(b"data")
    if not isinstance(data, bytes) or not isinstance(shape, list) or not all(isinstance(n, int) for n in shape):
        raise WireError("an array needs `data` (bytes) and `shape` (integers)")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data):
        raise WireError(f"an array of shape {tuple(shape)} and dtype {dtype} does not have {len(data)} bytes")
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def _dtype(value: dict[Any, Any]) -> np.dtype[Any]:
    try:
        dtype = np.dtype(str(value.get(b"dtype")))
    except TypeError as error:
        raise WireError(f"an array of unknown dtype: {error}") from error
    if dtype.kind not in _PLAIN_KINDS:
        raise WireError(f"arrays of dtype {dtype} are refused; numbers only")
    return dtype


def plain(value: Any) -> Any:
    """A received value as JSON can hold it."""
    match value:
        case dict():
            return {_text(key): plain(entry) for key, entry in value.items()}
        case np.ndarray() | np.generic():
            return plain(value.tolist())
        case list() | tuple():
            return [plain(entry) for entry in value]
        case float():
            return value if math.isfinite(value) else str(value)  # NaN is neither equal to itself nor JSON
        case bool() | int() | str() | None:
            return value
    return _text(value)


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def resized(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A square image (H, H, 3) at openpi's size (224, 224, 3), with the same bytes as its `resize_with_pad`."""
    if image.shape[:2] == (IMAGE_PX, IMAGE_PX):
        return np.ascontiguousarray(image)
    small = Image.fromarray(np.ascontiguousarray(image)).resize((IMAGE_PX, IMAGE_PX), Image.Resampling.BILINEAR)
    return np.asarray(small)
