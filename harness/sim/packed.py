"""Many arrays for a compiled function, behind one address: handing them over from Python takes a microsecond each.

A `NamedTuple` whose fields are annotated with the types below is packed once, as numba would hold it, and loaded where it is used.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple, get_args, get_type_hints

import numpy as np
from numba.core import cgutils as numba_cgutils
from numba.core import types as numba_types
from numba.extending import intrinsic
from numpy.typing import NDArray

types: Any = numba_types  # neither has type annotations
cgutils: Any = numba_cgutils
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
    return np.array(_words(values), dtype=np.int64)


def _words(values: Any) -> list[int]:
    words: list[int] = []
    for name, kind, value in zip(values._fields, _kinds(type(values)), values, strict=True):
        if kind is types.int64:
            words.append(int(value))
        elif kind is types.float64:
            words.append(int(np.float64(value).view(np.int64)))
        elif isinstance(kind, types.NamedTuple):
            words += _words(value)
        else:
            if (value.dtype.name, value.ndim, value.flags.c_contiguous) != (kind.dtype.name, kind.ndim, True):
                raise TypeError(
                    f"{type(values).__name__}.{name}: expected a contiguous {kind.dtype} array with {kind.ndim} dimensions, "
                    f"got {value.dtype} {value.shape}"
                )
            words += [0, 0, value.size, value.itemsize, value.ctypes.data, *value.shape, *value.strides]
    return words


def loader(cls: type[NamedTuple]) -> Any:
    """For compiled functions: from the address of packed words to the tuple."""
    kind = types.NamedTuple(_kinds(cls), cls)

    def make(context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            packed = context.get_value_type(kind)
            return builder.load(builder.inttoptr(arguments[0], packed.as_pointer()))

        return kind(types.int64), generate

    return intrinsic(make)


def _make_view(dtype: Any, *, rows: bool) -> Any:
    """An intrinsic that makes an array of memory which is somebody else's; numba's `carray` counts references."""
    kind = types.Array(dtype, 2 if rows else 1, "C")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, *shape = arguments
        strides = [context.get_constant(types.intp, dtype.bitwidth // 8)]
        if rows:
            strides.insert(0, builder.mul(strides[0], shape[1]))
        array = context.make_array(kind)(context, builder)
        array.meminfo = cgutils.get_null_value(array.meminfo.type)
        array.parent = cgutils.get_null_value(array.parent.type)
        array.nitems = builder.mul(*shape) if rows else shape[0]
        array.itemsize = strides[-1]
        array.data = builder.inttoptr(address, array.data.type)
        array.shape, array.strides = cgutils.pack_array(builder, shape), cgutils.pack_array(builder, strides)
        return array._getvalue()

    def make(context: Any, address: Any, n: Any) -> Any:
        return kind(types.int64, types.int64), generate

    def make_rows(context: Any, address: Any, n: Any, width: Any) -> Any:
        return kind(types.int64, types.int64, types.int64), generate

    return intrinsic(make_rows if rows else make)


floats_at: Any = _make_view(types.float64, rows=False)
"""floats_at(address, n): the float64 (n,) there; for compiled functions, as the next ones."""
ints_at: Any = _make_view(types.int32, rows=False)
longs_at: Any = _make_view(types.int64, rows=False)
bytes_at: Any = _make_view(types.uint8, rows=False)
float_rows: Any = _make_view(types.float64, rows=True)
"""float_rows(address, n, width): the float64 (n, width) there."""
int_rows: Any = _make_view(types.int32, rows=True)


def _kinds(cls: type[Any]) -> list[Any]:
    hints = get_type_hints(cls, include_extras=True)
    return [_kind(hints[name]) for name in cls._fields]


def _kind(hint: Any) -> Any:
    if hint in _NUMBERS:
        return _NUMBERS[hint]
    if hasattr(hint, "_fields"):
        return types.NamedTuple(_kinds(hint), hint)
    return get_args(hint)[1]
