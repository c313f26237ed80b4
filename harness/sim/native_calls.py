"""Calls by address from compiled code: of MuJoCo's functions, in the library that `mujoco` has loaded, and of compiled parts."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils as numba_cgutils
from numba.core import types as numba_types
from numba.extending import intrinsic
from numpy.typing import NDArray

from harness.sim.compiled import compile_part
from harness.sim.stack import mujoco

types: Any = numba_types  # neither has type annotations
cgutils: Any = numba_cgutils
Addresses = NDArray[np.int64]
NUM_GEOM_TYPES = 9
_BYTE, _INT, _DOUBLE = ir.IntType(8).as_pointer(), ir.IntType(32), ir.DoubleType()


def functions(names: tuple[str, ...]) -> Addresses | None:
    """(names,) addresses; None where the library or one of them is not found."""
    try:
        library = _library()
        found = [ctypes.cast(getattr(library, name), ctypes.c_void_p).value for name in names]
    except (OSError, AttributeError):
        return None
    return np.array(found, dtype=np.int64)


def collision_functions() -> Addresses | None:
    """(9, 9) addresses of `mjCOLLISIONFUNC`, by the types of two geoms; 0 for none."""
    try:
        table = (ctypes.c_int64 * NUM_GEOM_TYPES**2).in_dll(_library(), "mjCOLLISIONFUNC")
    except (OSError, ValueError):
        return None
    return np.array(table, dtype=np.int64).reshape(NUM_GEOM_TYPES, NUM_GEOM_TYPES)


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(str(Path(mujoco.__file__).parent / f"libmujoco.so.{mujoco.__version__}"), mode=os.RTLD_NOLOAD)


def _emit(builder: Any, arguments: Any, kinds: list[Any], result: Any) -> Any:
    """A call of the address `arguments[0]` with the others, which are of `kinds`: addresses and numbers are 64-bit integers."""
    given = []
    for argument, kind in zip(arguments[1:], kinds, strict=True):
        if kind is _BYTE:
            given.append(builder.inttoptr(argument, _BYTE))
        elif kind is _INT:
            given.append(builder.trunc(argument, _INT))
        else:
            given.append(argument)
    function = ir.FunctionType(result, kinds)
    return builder.call(builder.inttoptr(arguments[0], function.as_pointer()), given)


def _make_call(context: Any, function: Any, model: Any, data: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _emit(builder, arguments, [_BYTE] * 2, ir.VoidType())
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), generate


def _make_call_jacobian(  # noqa: PLR0917 (numba calls it by position)
    context: Any, function: Any, model: Any, data: Any, position: Any, rotation: Any, site: Any
) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _emit(builder, arguments, [*[_BYTE] * 4, _INT], ir.VoidType())
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), generate


def _make_call_add(context: Any, function: Any, model: Any, data: Any, contact: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.sext(_emit(builder, arguments, [_BYTE] * 3, _INT), ir.IntType(64))

    return types.int64(*[types.int64] * 4), generate


def _make_call_collide(  # noqa: PLR0917
    context: Any, function: Any, model: Any, data: Any, contacts: Any, geom1: Any, geom2: Any, margin: Any
) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found = _emit(builder, arguments, [*[_BYTE] * 3, _INT, _INT, _DOUBLE], _INT)
        return builder.sext(found, ir.IntType(64))

    return types.int64(*[types.int64] * 6, types.float64), generate


def _make_call_boxes(  # noqa: PLR0917
    context: Any, function: Any, box1: Any, box2: Any, pos1: Any, mat1: Any, pos2: Any, mat2: Any, margin: Any
) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        null = ir.Constant(ir.IntType(64), 0)
        kinds = [*[_BYTE] * 6, _DOUBLE, *[_BYTE] * 3]
        return builder.sext(_emit(builder, [*arguments, null, null, null], kinds, _INT), ir.IntType(64))

    return types.int64(*[types.int64] * 7, types.float64), generate


def _make_call_part(context: Any, function: Any, a: Any, b: Any, c: Any) -> Any:
    kinds = (types.int64,) * 3

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        convention = context.call_conv
        pointer = convention.get_function_type(types.int64, kinds).as_pointer()
        callee = builder.inttoptr(arguments[0], pointer)
        status, result = convention.call_function(builder, callee, types.int64, kinds, arguments[1:])
        with cgutils.if_unlikely(builder, status.is_error):
            convention.return_status_propagate(builder, status)
        return result

    return types.int64(*[types.int64] * 4), generate


def part_address(function: Any) -> int:
    """Of a compiled function of three integers that returns one: for `call_part`, in this process."""
    made = compile_part(function)
    return int(made.library.get_pointer_to_function(made.fndesc.llvm_func_name))


call: Any = intrinsic(_make_call)
"""call(function, model, data): any function of a model and its data."""
call_jacobian: Any = intrinsic(_make_call_jacobian)
"""call_jacobian(mj_jacSite, model, data, position, rotation, site); arrays by address."""
call_add: Any = intrinsic(_make_call_add)
"""call_add(mj_addContact, model, data, contact) → 0, or 1 where there is no room."""
call_collide: Any = intrinsic(_make_call_collide)
"""call_collide(of mjCOLLISIONFUNC, model, data, contacts, geom1, geom2, margin) → number of contacts."""
call_boxes: Any = intrinsic(_make_call_boxes)
"""call_boxes(mj_collideOBB, box1, box2, pos1, mat1, pos2, mat2, margin) → whether two oriented boxes meet."""
call_part: Any = intrinsic(_make_call_part)
"""call_part(of `part_address`, a, b, c) → integer; errors are passed on. Unlike a function called by name it is not compiled again as
a part of its caller."""
