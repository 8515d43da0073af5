"""Binary codes: B bits in W = ceil(B/8) bytes, bit 0 in the most significant place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


WORDS_COUNTED_IN_BYTES = 3
"""Codes of so many words of 64 bits differ in fewer than 256 bits."""


def bytes_per_code(bits: int) -> int:
    """Return W, the bytes that a code of `bits` takes."""
    return -(-bits // 8)


def pack(bools: NDArray[Any]) -> NDArray[np.uint8]:
    """Pack bits into bytes.

    Args:
        bools: shape=(N, B), dtype=bool or 0/1.

    Returns:
        shape=(N, W), dtype=uint8; the bits that fill up the last byte are zero.
    """
    return np.packbits(bools, axis=-1)


def unpack(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Undo `pack`.

    Args:
        codes: shape=(N, W), dtype=uint8.
        bits: Length B of a code.

    Returns:
        shape=(N, B), dtype=uint8, zeros and ones.
    """
    return np.unpackbits(codes, axis=-1, count=bits)


def hamming(code: NDArray[np.uint8], codes: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Count the bits in which codes differ.

    Args:
        code: shape=(W,), dtype=uint8.
        codes: shape=(N, W), dtype=uint8.

    Returns:
        shape=(N,), dtype=uint16.
    """
    different = np.bitwise_xor(_widest(codes), _widest(code))
    counts: NDArray[np.uint16] = np.bitwise_count(different).sum(axis=-1, dtype=np.uint16)
    return counts


def words(code: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Fill a code up to whole words with zeros, shape=(ceil(W/8),), dtype=uint64."""
    filled: NDArray[np.uint64] = rows_of_words(code[None])[0]
    return filled


def rows_of_words(codes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Fill codes, shape=(N, W), up to whole words with zeros, shape=(N, ceil(W/8))."""
    filled = np.zeros((len(codes), -(-codes.shape[1] // 8) * 8), np.uint8)
    filled[:, : codes.shape[1]] = codes
    return filled.view(np.uint64)


def hamming_of_words(code: NDArray[np.uint64], codes: NDArray[np.uint64]) -> NDArray[Any]:
    """Count the bits in which codes differ that are filled up to words.

    Word by word for all codes, which spares the slow sum over a short axis, and in bytes as long
    as the counts fit.

    Args:
        code: shape=(V,), dtype=uint64.
        codes: shape=(N, V), dtype=uint64.

    Returns:
        shape=(N,), dtype=uint8 up to 3 words, uint16 beyond.
    """
    counts: NDArray[Any] = np.bitwise_count(codes[:, 0] ^ code[0])
    if len(code) > WORDS_COUNTED_IN_BYTES:
        counts = counts.astype(np.uint16)
    for place in range(1, len(code)):
        counts += np.bitwise_count(codes[:, place] ^ code[place])
    return counts


def padding_mask(bits: int) -> int:
    """Return the bits of the last byte that belong to no code of `bits`."""
    return (1 << (-bits % 8)) - 1


def _widest(codes: NDArray[np.uint8]) -> NDArray[Any]:
    """View the bytes of each code as the widest words that divide it: fewer, larger steps."""
    width = codes.shape[-1]
    word = next(size for size in (8, 4, 2, 1) if width % size == 0)
    return np.ascontiguousarray(codes).view(f"u{word}")
