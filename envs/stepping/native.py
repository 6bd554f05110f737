"""MuJoCo's C functions, callable from numba-compiled code.

The compiled loop takes the functions' addresses as arguments instead of closing over them, so that numba can cache it
on disk: a closure over a ctypes function cannot be cached, and compiling takes many seconds per process.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any, NamedTuple

import mujoco
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic


class MujocoFunctions(NamedTuple):
    """Addresses of the C functions that the stepping loop calls (mujoco.h)."""

    step1: int  # mj_step1(m, d): position and velocity stages
    actuation: int  # mj_fwdActuation(m, d)
    acceleration: int  # mj_fwdAcceleration(m, d)
    constraint: int  # mj_fwdConstraint(m, d)
    check: int  # mj_checkAcc(m, d)
    euler: int  # mj_Euler(m, d)
    jac_site: int  # mj_jacSite(m, d, jacp, jacr, site)
    full_m: int  # mj_fullM(m, dst, M)


def mujoco_functions() -> MujocoFunctions:
    """Look the functions up in the shared library that the ``mujoco`` package has loaded."""
    library = next(p for p in Path(mujoco.__file__).parent.iterdir() if p.name.startswith("libmujoco."))
    handle = ctypes.CDLL(str(library))

    def address(name: str) -> int:
        value = ctypes.cast(getattr(handle, name), ctypes.c_void_p).value
        assert value is not None
        return value

    return MujocoFunctions(
        step1=address("mj_step1"),
        actuation=address("mj_fwdActuation"),
        acceleration=address("mj_fwdAcceleration"),
        constraint=address("mj_fwdConstraint"),
        check=address("mj_checkAcc"),
        euler=address("mj_Euler"),
        jac_site=address("mj_jacSite"),
        full_m=address("mj_fullM"),
    )


def _call(typingctx, address, arguments):  # type: ignore[no-untyped-def]
    """Call the C function ``void f(...)`` at ``address`` with a tuple of int64 arguments (pointers or C ints).

    Passing a C int as 64 bits is sound where arguments travel in registers (x86-64 and AArch64: at most 6 here).
    """

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        address_value, tuple_value = args
        values = cgutils.unpack_tuple(builder, tuple_value, len(signature.args[1]))
        function_type = ir.FunctionType(ir.VoidType(), [v.type for v in values])
        builder.call(builder.inttoptr(address_value, function_type.as_pointer()), values)
        return context.get_dummy_value()

    return types.void(types.int64, arguments), codegen


call: Any = intrinsic(_call)
