"""What the compiled loops need and Python cannot say: eight bytes at once, the lowest set bit, sixteen lanes of a vector.

In: arrays and places in them. Out: numbers. Guarantees: none against places outside of an array, which are the caller's
business; LLVM turns each of these into the best the processor has, on x86 and ARM alike (both little-endian).
Rejected: leaving the lanes to LLVM's own judgement (on AVX-512 processors it takes half of a register), and slices viewed
as wider numbers (they promise an alignment that texts do not have).
"""

# ruff: noqa: N803  # arrays carry their axes in their names
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.base import BaseContext
from numba.core.typing.templates import Signature
from numba.extending import intrinsic
from numpy.typing import NDArray

from synthgen.refine.shingles import CORNER_BITS, U32, U64

__all__ = [
    "LANES",
    "NOTHING",
    "U8",
    "Codegen",
    "compiled",
    "load64",
    "lower_corners",
    "lower_lanes",
    "ones",
    "place_of",
    "store64",
    "trailing_zeros",
]

F = TypeVar("F", bound=Callable[..., object])
U8 = NDArray[np.uint8]
LANES = 16

_BYTE, _WORD = ir.IntType(8), ir.IntType(64)
_VECTOR = ir.VectorType(ir.IntType(32), LANES)
NOTHING = ir.Constant(_BYTE.as_pointer(), None)
Codegen = tuple[Signature, Callable[[BaseContext, ir.IRBuilder, Signature, Sequence[ir.Value]], ir.Value]]


def compiled(function: F) -> F:
    """Compiled at its first call; the machine code stays in numba's cache on disk, where there is a place for one."""
    try:
        return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
    except RuntimeError:  # neither the package nor the user's cache folder can be written
        return cast(F, numba.njit(nogil=True, error_model="numpy")(function))


def place_of(
    context: BaseContext, builder: ir.IRBuilder, kind: types.Array, array: ir.Value, at: ir.Value, to: ir.Type
) -> ir.Value:
    """Where the item `at` of an array lies, as a pointer to something else."""
    make_array: Callable[[types.Array], Callable[..., ir.Value]] = context.make_array
    start = make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(start, [at]), to.as_pointer())


@intrinsic
def _load64(_: object, text_C: types.Array, at: types.Integer) -> Codegen:
    def code(
        context: BaseContext, builder: ir.IRBuilder, signature: Signature, args: Sequence[ir.Value]
    ) -> ir.Value:
        place = place_of(context, builder, signature.args[0], args[0], args[1], _WORD)
        return builder.load(place, align=1)

    return types.uint64(text_C, types.int64), code


@intrinsic
def _store64(_: object, text_C: types.Array, at: types.Integer, value: types.Integer) -> Codegen:
    def code(
        context: BaseContext, builder: ir.IRBuilder, signature: Signature, args: Sequence[ir.Value]
    ) -> ir.Value:
        place = place_of(context, builder, signature.args[0], args[0], args[1], _WORD)
        builder.store(args[2], place, align=1)
        return NOTHING

    return types.void(text_C, types.int64, types.uint64), code


@intrinsic
def _trailing_zeros(_: object, value: types.Integer) -> Codegen:
    def code(_: BaseContext, builder: ir.IRBuilder, __: Signature, args: Sequence[ir.Value]) -> ir.Value:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), code


@intrinsic
def _ones(_: object, value: types.Integer) -> Codegen:
    def code(_: BaseContext, builder: ir.IRBuilder, __: Signature, args: Sequence[ir.Value]) -> ir.Value:
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), code


def _spread(builder: ir.IRBuilder, first: ir.Value, place: int) -> ir.Value:
    """The number `place` steps from a pointer, in all lanes."""
    one = builder.load(builder.gep(first, [ir.Constant(_WORD, place)]), align=4)
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    lane = builder.insert_element(undefined, one, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(lane, undefined, ir.Constant(_VECTOR, None))


@intrinsic
def _lower_lanes(
    _: object,
    signature_P: types.Array,
    factor_P: types.Array,
    summand_P: types.Array,
    at: types.Integer,
    hash_S: types.Array,
    first: types.Integer,
    count: types.IntegerLiteral,
) -> Codegen | None:
    if not isinstance(count, types.IntegerLiteral):
        return None

    def code(
        context: BaseContext, builder: ir.IRBuilder, signature: Signature, args: Sequence[ir.Value]
    ) -> ir.Value:
        kinds = signature.args
        own, factor, summand = (
            place_of(context, builder, kinds[i], args[i], args[3], _VECTOR) for i in range(3)
        )
        low = builder.load(own, align=4)
        factors, summands = builder.load(factor, align=4), builder.load(summand, align=4)
        first = place_of(context, builder, kinds[4], args[4], args[5], ir.IntType(32))
        for i in range(count.literal_value):
            found = builder.add(builder.mul(_spread(builder, first, i), factors), summands)
            low = builder.select(builder.icmp_unsigned("<", found, low), found, low)
        builder.store(low, own, align=4)
        return NOTHING

    integers = (types.int64, hash_S, types.int64, count)
    return types.void(signature_P, factor_P, summand_P, *integers), code


@intrinsic
def _lower_corners(
    _: object,
    low_P: types.Array,
    factor_L: types.Array,
    summand_L: types.Array,
    group: types.Integer,
    hash_S: types.Array,
    first: types.Integer,
    count: types.IntegerLiteral,
) -> Codegen | None:
    if not isinstance(count, types.IntegerLiteral):
        return None
    corners = 1 << CORNER_BITS

    def code(
        context: BaseContext, builder: ir.IRBuilder, signature: Signature, args: Sequence[ir.Value]
    ) -> ir.Value:
        kinds = signature.args
        lane = builder.mul(args[3], ir.Constant(_WORD, LANES))
        place = builder.mul(lane, ir.Constant(_WORD, corners))
        own = place_of(context, builder, kinds[0], args[0], place, ir.IntType(32))
        rows = [
            builder.bitcast(builder.gep(own, [ir.Constant(_WORD, c * LANES)]), _VECTOR.as_pointer())
            for c in range(corners)
        ]
        found = [builder.load(row, align=4) for row in rows]
        factors, summands = (
            builder.load(place_of(context, builder, kinds[i], args[i], lane, _VECTOR), align=4)
            for i in (1, 2)
        )
        start = place_of(context, builder, kinds[4], args[4], args[5], ir.IntType(32))
        for i in range(count.literal_value):
            upper = _spread(builder, start, 2 * i + 1)
            permuted = builder.add(builder.mul(upper, factors), summands)
            for c in range(corners // 2):
                mask = ir.Constant(_VECTOR, [c << (32 - CORNER_BITS)] * LANES)
                seen = builder.xor(permuted, mask) if c else permuted
                for corner, sign in ((c, "<"), (c + corners // 2, ">")):
                    nearer = builder.icmp_unsigned(sign, seen, found[corner])
                    found[corner] = builder.select(nearer, seen, found[corner])
        for row, value in zip(rows, found, strict=True):
            builder.store(value, row, align=4)
        return NOTHING

    return types.void(low_P, factor_L, summand_L, types.int64, hash_S, types.int64, count), code


load64 = cast(Callable[[U8, int], np.uint64], _load64)
"""The eight bytes from a place on, the first of them lowest."""

store64 = cast(Callable[[U8, int, np.uint64], None], _store64)
"""Eight bytes to a place and behind it."""

trailing_zeros = cast(Callable[[np.uint64], np.uint64], _trailing_zeros)
"""The number of the lowest set bit, 64 for 0."""

ones = cast(Callable[[np.uint64], np.uint64], _ones)
"""How many bits are set."""

lower_lanes = cast(Callable[[U32, U32, U32, int, U32, int, int], None], _lower_lanes)
"""`lower_lanes(signature_P, factor_P, summand_P, p, hash_S, s, count)`: lower the `LANES` places from `p` on to what
`count` (a literal) hashes from `s` on, already mixed, are permuted to."""

lower_corners = cast(Callable[[U32, U32, U32, int, U64, int, int], None], _lower_corners)
"""`lower_corners(low_P, factor_L, summand_L, group, hash_S, s, count)`: take the upper halves of `count` (a literal) hashes from
`s` on into the group's smallest and greatest permuted hashes: `shingles.sign_corners` says which."""
