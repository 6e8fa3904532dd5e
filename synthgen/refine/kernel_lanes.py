"""Eight words, or eight shingles, at a time in the lanes of a vector.

In: arrays and places in them; whole eights are read and written, whatever of them counts. Out: hashes. Guarantee: those of
`synthgen.refine.shingles`. Rejected: leaving it to LLVM, which makes words one by one (their bytes lie anywhere) and the last
shingles of each text one by one; gathering loads (no quicker where they are quick).
"""

# ruff: noqa: N803  # arrays carry their axes in their names
from collections.abc import Callable, Sequence
from typing import cast

from llvmlite import ir
from numba.core import types
from numba.core.base import BaseContext
from numba.core.cgutils import alloca_once, for_range
from numba.core.typing.templates import Signature
from numba.extending import intrinsic

from synthgen.refine.kernel_bits import NOTHING, U8, Codegen, place_of
from synthgen.refine.shingles import CHUNK_BASE, I64, U64

__all__ = ["EIGHT", "MIX_A", "MIX_B", "hash_shingles", "hash_words"]

EIGHT = 8
MIX_A, MIX_B = 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53  # MurmurHash3's 64-bit finaliser
_WORD = ir.IntType(64)
_LANE = ir.IntType(32)
_VECTOR = ir.VectorType(_WORD, EIGHT)


def _all(value: int) -> ir.Constant:
    return ir.Constant(_VECTOR, [value] * EIGHT)


def _every_other(first: int) -> ir.Constant:
    return ir.Constant(ir.VectorType(_LANE, EIGHT), list(range(first, 2 * EIGHT, 2)))


def _least(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def _greatest(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    return builder.select(builder.icmp_signed(">", a, b), a, b)


def _lowest_bytes(builder: ir.IRBuilder, x: ir.Value, count: ir.Value) -> ir.Value:
    """The lowest one to eight bytes of each lane; a count beyond that means the nearer of them."""
    count = _least(builder, _greatest(builder, count, _all(1)), _all(8))
    unwanted = builder.sub(_all(64), builder.shl(count, _all(3)))
    return builder.and_(x, builder.lshr(_all((1 << 64) - 1), unwanted))


def _mixed(builder: ir.IRBuilder, h: ir.Value) -> ir.Value:
    for factor in (MIX_A, MIX_B):
        h = builder.mul(builder.xor(h, builder.lshr(h, _all(33))), _all(factor))
    return builder.xor(h, builder.lshr(h, _all(33)))


@intrinsic
def _hash_words(
    _: object, text_C: types.Array, edge_E: types.Array, t: types.Integer, token_T: types.Array
) -> Codegen:
    def code(
        context: BaseContext, builder: ir.IRBuilder, signature: Signature, args: Sequence[ir.Value]
    ) -> ir.Value:
        kinds = signature.args
        text = place_of(context, builder, kinds[0], args[0], ir.Constant(_WORD, 0), ir.IntType(8))
        twice = builder.shl(args[2], ir.Constant(_WORD, 1))
        edge = place_of(context, builder, kinds[1], args[1], twice, _WORD)
        edges = builder.load(builder.bitcast(edge, ir.VectorType(_WORD, 2 * EIGHT).as_pointer()), align=8)
        size = builder.sub(
            builder.shuffle_vector(edges, edges, _every_other(1)),
            builder.shuffle_vector(edges, edges, _every_other(0)),
        )
        chunks = [ir.Constant(_VECTOR, ir.Undefined)] * 2
        for lane in range(EIGHT):
            at = builder.load(builder.gep(edge, [ir.Constant(_WORD, 2 * lane)]), align=8)
            start = builder.bitcast(builder.gep(text, [at]), _WORD.as_pointer())
            for k in range(2):
                chunk = builder.load(builder.gep(start, [ir.Constant(_WORD, k)]), align=1)
                chunks[k] = builder.insert_element(chunks[k], chunk, ir.Constant(_LANE, lane))
        second = _lowest_bytes(builder, chunks[1], builder.sub(size, _all(8)))
        second = builder.select(
            builder.icmp_signed(">", size, _all(8)), builder.mul(second, _all(CHUNK_BASE)), _all(0)
        )
        h = _mixed(builder, builder.add(_lowest_bytes(builder, chunks[0], size), second))
        builder.store(h, place_of(context, builder, kinds[3], args[3], args[2], _VECTOR), align=8)
        longer = builder.icmp_signed(">", size, _all(16))
        return builder.icmp_unsigned(
            "!=", builder.bitcast(longer, ir.IntType(EIGHT)), ir.Constant(ir.IntType(EIGHT), 0)
        )

    return types.boolean(text_C, edge_E, types.int64, token_T), code


@intrinsic
def _hash_shingles(
    _: object,
    token_T: types.Array,
    power_T: types.Array,
    n: types.Integer,
    g: types.Integer,
    hash_G: types.Array,
) -> Codegen:
    def code(
        context: BaseContext, builder: ir.IRBuilder, signature: Signature, args: Sequence[ir.Value]
    ) -> ir.Value:
        kinds = signature.args
        token = place_of(context, builder, kinds[0], args[0], args[3], _WORD)
        power = place_of(context, builder, kinds[1], args[1], ir.Constant(_WORD, 0), _WORD)
        allocated: Callable[[ir.IRBuilder, ir.Type], ir.Value] = alloca_once
        sums = allocated(builder, _VECTOR)
        builder.store(builder.load(builder.bitcast(token, _VECTOR.as_pointer()), align=8), sums)
        with for_range(builder, args[2], start=ir.Constant(_WORD, 1)) as loop:
            tokens = builder.load(
                builder.bitcast(builder.gep(token, [loop.index]), _VECTOR.as_pointer()), align=8
            )
            undefined = ir.Constant(_VECTOR, ir.Undefined)
            factor = builder.insert_element(
                undefined, builder.load(builder.gep(power, [loop.index])), ir.Constant(_LANE, 0)
            )
            factors = builder.shuffle_vector(
                factor, undefined, ir.Constant(ir.VectorType(_LANE, EIGHT), None)
            )
            builder.store(builder.add(builder.load(sums), builder.mul(tokens, factors)), sums)
        h = _mixed(builder, builder.load(sums))
        builder.store(h, place_of(context, builder, kinds[4], args[4], args[3], _VECTOR), align=8)
        return NOTHING

    return types.void(token_T, power_T, types.int64, types.int64, hash_G), code


hash_words = cast(Callable[[U8, I64, int, U64], bool], _hash_words)
"""`hash_words(text_C, edge_E, t, token_T)`: the hashes of eight words from `t` on; True where one of them has more than
sixteen bytes, and its hash is none."""

hash_shingles = cast(Callable[[U64, U64, int, int, U64], None], _hash_shingles)
"""`hash_shingles(token_T, power_T, n, g, hash_G)`: the hashes of eight shingles of `n` tokens from `g` on."""
