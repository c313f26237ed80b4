"""Four numbers at a time, for compiled functions: as MuJoCo's AVX code computes, each lane on its own.

numba leaves it to LLVM to find such fours, which it does not where arrays might overlap or sums run on from block to block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils as numba_cgutils
from numba.core import types as numba_types
from numba.extending import intrinsic

types: Any = numba_types  # neither has type annotations
cgutils: Any = numba_cgutils
_DOUBLE = ir.DoubleType()
_FOUR = ir.VectorType(_DOUBLE, 4)
_ALIGNMENT = 8
_SUMS = types.UniTuple(types.float64, 4)


def _address(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    """Of an element, as a pointer to four."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), _FOUR.as_pointer())


def _four(builder: Any, pointer: Any) -> Any:
    return builder.load(pointer, align=_ALIGNMENT)


def _sums(  # noqa: PLR0917
    context: Any, builder: Any, addends: Callable[[Any], tuple[Any, Any]], begin: Any, end: Any, step: int
) -> Any:
    """Products of what `addends` gives for each index, added up in lanes."""
    total = cgutils.alloca_once_value(builder, ir.Constant(_FOUR, [0.0] * 4))
    with cgutils.for_range_slice(builder, begin, end, ir.Constant(end.type, step), end.type) as (index, _):
        one, other = addends(index)
        builder.store(builder.fadd(builder.load(total), builder.fmul(one, other)), total)
    whole = builder.load(total)
    lanes = [builder.extract_element(whole, ir.Constant(ir.IntType(32), lane)) for lane in range(4)]
    return context.make_tuple(builder, _SUMS, lanes)


def _make_dot(context: Any, a: Any, at: Any, b: Any, bt: Any, begin: Any, end: Any) -> Any:  # noqa: PLR0917
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, at, b, bt, begin, end = arguments

        def addends(i: Any) -> tuple[Any, Any]:
            first = _address(context, builder, signature.args[0], a, builder.add(at, i))
            return _four(builder, first), _four(
                builder, _address(context, builder, signature.args[2], b, builder.add(bt, i))
            )

        return _sums(context, builder, addends, begin, end, 4)

    integer = types.int64
    return _SUMS(a, integer, b, integer, integer, integer), generate


def _make_row_sums(context: Any, value: Any, column: Any, vector: Any, begin: Any, end: Any) -> Any:  # noqa: PLR0917
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, column, vector, begin, end = arguments
        columns = context.make_array(signature.args[1])(context, builder, column).data

        def addends(block: Any) -> tuple[Any, Any]:
            at = builder.zext(builder.load(builder.gep(columns, [block])), block.type)
            elements = _address(
                context, builder, signature.args[0], value, builder.shl(block, ir.Constant(block.type, 2))
            )
            return _four(builder, elements), _four(builder, _address(context, builder, signature.args[2], vector, at))

        return _sums(context, builder, addends, begin, end, 1)

    return _SUMS(value, column, vector, types.int64, types.int64), generate


def _make_add_scaled(context: Any, to: Any, to_at: Any, source: Any, at: Any, scale: Any) -> Any:  # noqa: PLR0917
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        to, to_at, source, at, scale = arguments
        goal = _address(context, builder, signature.args[0], to, to_at)
        elements = _four(builder, _address(context, builder, signature.args[2], source, at))
        factors = ir.Constant(_FOUR, ir.Undefined)
        for lane in range(4):
            factors = builder.insert_element(factors, scale, ir.Constant(ir.IntType(32), lane))
        builder.store(builder.fadd(_four(builder, goal), builder.fmul(elements, factors)), goal, align=_ALIGNMENT)
        return context.get_dummy_value()

    return types.void(to, types.int64, source, types.int64, types.float64), generate


dot_lanes: Any = intrinsic(_make_dot)
"""dot_lanes(a, at, b, bt, begin, end): four sums of a[at + i] * b[bt + i]; lane k has i = begin + k, begin + k + 4, … < end."""
row_lanes: Any = intrinsic(_make_row_sums)
"""row_lanes(value, column, vector, begin, end): four sums of value[4 block + k] * vector[column[block] + k] over a range of blocks."""
add_scaled: Any = intrinsic(_make_add_scaled)
"""add_scaled(to, to_at, source, at, scale): to[to_at + k] += source[at + k] * scale for four k."""
