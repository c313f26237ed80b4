"""Many arrays for a compiled function, behind one address: handing them over from Python takes a microsecond each.

A `NamedTuple` whose fields are annotated with the types below is packed once, as numba would hold it, and loaded where it is used.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple, get_args, get_type_hints

import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

Addresses = NDArray[np.int64]
Bytes = Annotated[NDArray[np.uint8], types.uint8[::1]]
Ints = Annotated[NDArray[np.int32], types.int32[::1]]
IntRows = Annotated[NDArray[np.int32], types.int32[:, ::1]]
Longs = Annotated[NDArray[np.int64], types.int64[::1]]
LongRows = Annotated[NDArray[np.int64], types.int64[:, ::1]]
Floats = Annotated[NDArray[np.float64], types.float64[::1]]
FloatRows = Annotated[NDArray[np.float64], types.float64[:, ::1]]
_NUMBERS = {int: types.int64, float: types.float64}


def pack(values: NamedTuple) -> Addresses:
    """The tuple as eight-byte words. It refers to the arrays: keep both as long as it is used.

    Raises:
        TypeError: an array is not of the type its field says, or not contiguous.
    """
    words: list[int] = []
    for name, kind, value in zip(values._fields, _kinds(type(values)), values, strict=True):
        if kind is types.int64:
            words.append(int(value))
        elif kind is types.float64:
            words.append(int(np.float64(value).view(np.int64)))
        else:
            if (value.dtype.name, value.ndim, value.flags.c_contiguous) != (kind.dtype.name, kind.ndim, True):
                raise TypeError(
                    f"{type(values).__name__}.{name}: expected a contiguous {kind.dtype} array with {kind.ndim} dimensions, "
                    f"got {value.dtype} {value.shape}"
                )
            words += [0, 0, value.size, value.itemsize, value.ctypes.data, *value.shape, *value.strides]
    return np.array(words, dtype=np.int64)


def loader(cls: type[NamedTuple]) -> Any:
    """For compiled functions: from the address of packed words to the tuple."""
    kind = types.NamedTuple(_kinds(cls), cls)

    def make(context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            packed = context.get_value_type(kind)
            return builder.load(builder.inttoptr(arguments[0], packed.as_pointer()))

        return kind(types.int64), generate

    return intrinsic(make)


def _make_rows(dtype: Any) -> Any:
    kind = types.Array(dtype, 2, "C")

    def make(context: Any, address: Any, n: Any, width: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            address, *shape = arguments
            itemsize = context.get_constant(types.intp, dtype.bitwidth // 8)
            array = context.make_array(kind)(context, builder)
            array.meminfo = cgutils.get_null_value(array.meminfo.type)
            array.parent = cgutils.get_null_value(array.parent.type)
            array.nitems, array.itemsize = builder.mul(*shape), itemsize
            array.data = builder.inttoptr(address, array.data.type)
            array.shape = cgutils.pack_array(builder, shape)
            array.strides = cgutils.pack_array(builder, [builder.mul(itemsize, shape[1]), itemsize])
            return array._getvalue()

        return kind(types.int64, types.int64, types.int64), generate

    return intrinsic(make)


float_rows: Any = _make_rows(types.float64)
"""float_rows(address, n, width): float64 (n, width) that lie there."""
int_rows: Any = _make_rows(types.int32)
"""Likewise int32."""


def _kinds(cls: type[Any]) -> list[Any]:
    hints = get_type_hints(cls, include_extras=True)
    return [_NUMBERS.get(hints[name]) or get_args(hints[name])[1] for name in cls._fields]
