"""What the compiled text kernels share: Arrow buffers, 64-byte class masks, bit tricks, character classes, one hash.

A kernel takes `data` (uint8, the concatenated UTF-8 of a batch) and `offsets` (int64, documents + 1) as they lie in an
Arrow array, runs without the interpreter lock, and writes integers into arrays that it is given. Scans go 64 bytes at a
time: a vector comparison turns a block into a 64-bit mask, masks combine by shifts and ands, and set bits are walked with
`trailing_zeros`. Blocks at the end of the buffer are copied into a zeroed pad (`block`), since Arrow promises no padding.

Numba turns uint64 mixed with a signed integer into float64: wrap every literal (`U1`, `np.uint64(..)`).
A raw pointer (`array.ctypes.data`) does not keep its array alive: pass the array in as an argument and touch it last.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pyarrow as pa
from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def _place_for_compiled_code() -> None:
    """Where neither the installation nor the home can be written, a private folder takes the compiled kernels.

    It lasts as long as the process: a lasting one of a known name in a shared place could be filled by others. Set
    NUMBA_CACHE_DIR to keep one.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    beside = Path(__file__).parent / "__pycache__"
    places = [next(place for place in (path, *path.parents) if place.exists()) for path in (beside, home)]
    if not numba.config.CACHE_DIR and not any(os.access(place, os.W_OK) for place in places):
        folder = tempfile.mkdtemp(prefix="winnow-kernels-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        numba.config.CACHE_DIR = folder


_place_for_compiled_code()

# Compiled once and cached; boundscheck follows NUMBA_BOUNDSCHECK so that the tests can run the kernels checked.
kernel = numba.njit(nogil=True, cache=True)
inlined = numba.njit(nogil=True, cache=True, inline="always")

ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
U0, U1, U63, U64 = np.uint64(0), np.uint64(1), np.uint64(63), np.uint64(64)


def buffers(texts: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """(data uint8 [bytes], offsets int64 [documents + 1]) of a string array, without a copy; slices are honoured."""
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    if not pa.types.is_large_string(texts.type):
        texts = texts.cast(pa.large_string())
    _, offset_buffer, data_buffer = texts.buffers()
    if len(texts) == 0 or data_buffer is None:
        return np.zeros(64, np.uint8), np.zeros(len(texts) + 1, np.int64)
    offsets = np.frombuffer(offset_buffer, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return np.frombuffer(data_buffer, np.uint8), offsets


def string_array(data: np.ndarray, offsets: np.ndarray) -> pa.Array:
    """The large_string array over `data` (valid UTF-8) and `offsets` (int64, from 0), without a copy."""
    return pa.Array.from_buffers(
        pa.large_string(), len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    )


# -- single instructions that numba does not offer -------------------------------------------------------------------------
# `base` is an array's address (array.ctypes.data), `at` a byte offset from it.


@intrinsic
def load64(typing_context: Any, base: Any, at: Any) -> Any:
    """Eight bytes at any alignment, little-endian, as uint64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(builder.add(args[0], args[1]), ir.IntType(64).as_pointer())
        value = builder.load(pointer)
        value.align = 1
        return value

    return types.uint64(types.intp, types.int64), generate


@intrinsic
def store64(typing_context: Any, base: Any, at: Any, value: Any) -> Any:
    """Writes a uint64 at any alignment."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(builder.add(args[0], args[1]), ir.IntType(64).as_pointer())
        builder.store(args[2], pointer).align = 1
        return context.get_dummy_value()

    return types.void(types.intp, types.int64, types.uint64), generate


@intrinsic
def trailing_zeros(typing_context: Any, word: Any) -> Any:
    """Index of the lowest set bit; 64 for zero."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@intrinsic
def leading_zeros(typing_context: Any, word: Any) -> Any:
    """Number of zeros above the highest set bit; 64 for zero."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@intrinsic
def popcount(typing_context: Any, word: Any) -> Any:
    """Number of set bits."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.uint64), generate


@intrinsic
def fold(typing_context: Any, left: Any, right: Any) -> Any:
    """The 128-bit product folded to 64 bits (high xor low): the mixing step of `hash_bytes`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(args[0], wide), builder.zext(args[1], wide))
        high = builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))
        return builder.xor(builder.trunc(product, ir.IntType(64)), high)

    return types.uint64(types.uint64, types.uint64), generate


# -- class masks: 64 bytes -> 64 bits, bit i for byte i ---------------------------------------------------------------------

_VECTOR = ir.VectorType(ir.IntType(8), 64)


def _constant(value: int) -> Any:
    return ir.Constant(_VECTOR, [value] * 64)


def _mask(compare: Any, extra: tuple[Any, ...] = ()) -> Any:
    """An intrinsic (base, at, *extra) -> uint64 from `compare(builder, vector, *extra)` -> 64 booleans."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(builder.add(args[0], args[1]), _VECTOR.as_pointer())
        vector = builder.load(pointer)
        vector.align = 1
        return builder.bitcast(compare(builder, vector, *args[2:]), ir.IntType(64))

    return types.uint64(types.intp, types.int64, *extra), generate


def _between(builder: Any, vector: Any, low: int, count: int) -> Any:
    return builder.icmp_unsigned("<", builder.sub(vector, _constant(low)), _constant(count))


def _splat(builder: Any, value: Any) -> Any:
    one = builder.insert_element(
        ir.Constant(_VECTOR, ir.Undefined), builder.trunc(value, ir.IntType(8)), ir.Constant(ir.IntType(32), 0)
    )
    return builder.shuffle_vector(
        one, ir.Constant(_VECTOR, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), 64), [0] * 64)
    )


@intrinsic
def mask_equal(typing_context: Any, base: Any, at: Any, byte: Any) -> Any:
    """Bytes equal to `byte`."""
    return _mask(lambda b, v, byte: b.icmp_unsigned("==", v, _splat(b, byte)), (types.int64,))


@intrinsic
def mask_equal_folded(typing_context: Any, base: Any, at: Any, lower: Any) -> Any:
    """Bytes equal to the ASCII letter `lower` in either case."""
    return _mask(lambda b, v, lower: b.icmp_unsigned("==", b.or_(v, _constant(32)), _splat(b, lower)), (types.int64,))


@intrinsic
def mask_letters(typing_context: Any, base: Any, at: Any) -> Any:
    """ASCII letters."""
    return _mask(lambda b, v: _between(b, b.or_(v, _constant(32)), 97, 26))


@intrinsic
def mask_digits(typing_context: Any, base: Any, at: Any) -> Any:
    """ASCII digits."""
    return _mask(lambda b, v: _between(b, v, 48, 10))


@intrinsic
def mask_split_space(typing_context: Any, base: Any, at: Any) -> Any:
    """ASCII white space of str.split(): 9-13 and 28-32."""
    return _mask(lambda b, v: b.or_(_between(b, v, 9, 5), _between(b, v, 28, 5)))


@intrinsic
def mask_regex_space(typing_context: Any, base: Any, at: Any) -> Any:
    r"""ASCII white space of a Unicode regular expression's \s: 9-13 and 32."""
    return _mask(lambda b, v: b.or_(_between(b, v, 9, 5), b.icmp_unsigned("==", v, _constant(32))))


@intrinsic
def mask_control(typing_context: Any, base: Any, at: Any) -> Any:
    """Bytes 0-31 and 127."""
    return _mask(
        lambda b, v: b.or_(b.icmp_unsigned("<", v, _constant(32)), b.icmp_unsigned("==", v, _constant(127)))
    )


@intrinsic
def mask_high(typing_context: Any, base: Any, at: Any) -> Any:
    """Bytes of non-ASCII characters: 128 and above."""
    return _mask(lambda b, v: b.icmp_signed("<", v, _constant(0)))


@intrinsic
def mask_continuation(typing_context: Any, base: Any, at: Any) -> Any:
    """Second to fourth bytes of a UTF-8 character: 128 to 191."""
    return _mask(lambda b, v: b.icmp_signed("<", v, _constant(-64)))


@kernel
def block(data: np.ndarray, at: int, pad: np.ndarray) -> int:
    """Copies the up to 64 bytes of `data` from `at` into `pad` (uint8 [>= 64]), zero-filled; for the buffer's last block."""
    size = data.shape[0]
    for i in range(64):
        pad[i] = data[at + i] if at + i < size else np.uint8(0)
    return 0


@kernel
def equal_within(data: np.ndarray, at: int, stop: int, byte: int, pad: np.ndarray) -> np.uint64:
    """Where the up to 64 bytes of data[at:stop] equal `byte`, bit i for byte at + i. pad: uint8 [>= 64], see `block`."""
    if at + 64 <= data.shape[0]:
        equal = mask_equal(data.ctypes.data, at, byte)
    else:
        block(data, at, pad)
        equal = mask_equal(pad.ctypes.data, 0, byte)
    return equal & (ALL >> np.uint64(64 - min(stop - at, 64)))


# -- characters -------------------------------------------------------------------------------------------------------------

ALPHA, SPACE, NUMERIC = 1, 2, 3
_FIRST_ASTRAL = 0x110000


def python_classes() -> np.ndarray:
    """uint8 [0x110000] by the running Python's Unicode: ALPHA where str.isalpha(), SPACE where str.isspace(), NUMERIC where
    str.isalnum() only, else 0.
    """
    classes = np.zeros(_FIRST_ASTRAL, np.uint8)
    for code in range(_FIRST_ASTRAL):
        character = chr(code)
        if character.isalpha():
            classes[code] = ALPHA
        elif character.isspace():
            classes[code] = SPACE
        elif character.isalnum():
            classes[code] = NUMERIC
    return classes


@kernel
def decode(data: np.ndarray, at: int) -> tuple[Any, int]:
    """(code point, width in bytes) of the UTF-8 character that begins at `at`; the text must be valid."""
    lead = np.int64(data[at])
    if lead < 0x80:
        return lead, 1
    second = np.int64(data[at + 1]) & 63
    if lead < 0xE0:
        return ((lead & 31) << 6) | second, 2
    third = np.int64(data[at + 2]) & 63
    if lead < 0xF0:
        return ((lead & 15) << 12) | (second << 6) | third, 3
    return ((lead & 7) << 18) | (second << 12) | (third << 6) | (np.int64(data[at + 3]) & 63), 4


# -- hash -------------------------------------------------------------------------------------------------------------------

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_TAIL = np.uint64(0xD6E8FEB86659FD93)
_FINAL_XOR, _FINAL_MUL = np.uint64(0xA0761D6478BD642F), np.uint64(0xE7037ED1A0B428DB)


@kernel
def mix(left: np.uint64, right: np.uint64) -> np.uint64:
    """One 64-bit hash of two, order kept."""
    return fold(left ^ _FINAL_XOR, right ^ _GOLDEN)


@kernel
def hash_bytes(data: np.ndarray, start: int, stop: int, seed: np.uint64) -> np.uint64:
    """64-bit hash of data[start:stop], eight bytes at a time by multiply and fold; `hash_bytes_reference` says it in Python.

    Not for keys that an adversary may choose: content hashes and ids are blake2b.
    """
    base = data.ctypes.data
    state = seed ^ np.uint64(stop - start)
    at = start
    while at + 8 <= stop:
        state = fold(state ^ load64(base, at), _GOLDEN)
        at += 8
    rest = stop - at
    if rest > 0:
        if at + 8 <= data.shape[0]:
            tail = load64(base, at) & (ALL >> np.uint64(64 - 8 * rest))
        else:
            tail = U0
            for i in range(rest):
                tail |= np.uint64(data[at + i]) << np.uint64(8 * i)
        state = fold(state ^ tail, _TAIL)
    return fold(state ^ _FINAL_XOR, _FINAL_MUL)


def hash_bytes_reference(text: bytes, seed: int) -> int:
    """`hash_bytes` in plain Python."""

    def folded(left: int, right: int) -> int:
        product = left * right
        return (product & int(ALL)) ^ (product >> 64)

    state = seed ^ len(text)
    full = len(text) & ~7
    for at in range(0, full, 8):
        state = folded(state ^ int.from_bytes(text[at : at + 8], "little"), int(_GOLDEN))
    if full < len(text):
        state = folded(state ^ int.from_bytes(text[full:], "little"), int(_TAIL))
    return folded(state ^ int(_FINAL_XOR), int(_FINAL_MUL))
