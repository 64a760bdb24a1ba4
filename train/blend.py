"""Which sequence comes at which place of a run: pure arithmetic on (seed, place), with no state and nothing precomputed.

A **part** is one shard with its share of the batch. Place g of the run (step x batch + index in the batch, from 0) is given to a
part by halving the list of parts: at each half the left side has received floor(g w) of the first g places, w its share. So the
mixture is exact at all times: of any first g places, a part has its share to within one place a halving. Then the part's own
k-th place is sequence `permute(k mod n)` of its pass k div n: every sequence once a pass, in an order of its own for every pass.

Megatron keeps such orders in arrays that it builds before a run; here a run of any length starts at any place at once, which is
what resuming, other numbers of processes and skipping a bad window need.

The permutation is a Feistel network of four rounds over the next even power of two, walked until it falls inside (Black and
Rogaway 2002); its round function is the finaliser of SplitMix64 (Steele, Lea and Flood 2014).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

_SCALE = 1 << 48  # shares as whole numbers: to 3e-15
_ROUNDS = 4
_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Place:
    """What comes at a place: sequence `sequence` of part `part`, in the part's pass `epoch` (all from 0)."""

    part: int
    epoch: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Blend:
    """Parts by name, with their number of sequences and their share of the batch (shares need not sum to 1).

    The order within a part depends on its name, not on the other parts.
    """

    seed: int
    names: tuple[str, ...]
    sequences: tuple[int, ...]
    shares: tuple[int, ...]

    @classmethod
    def of(cls, seed: int, names: Sequence[str], sequences: Sequence[int], shares: Sequence[float]) -> Blend:
        """From shares as numbers above 0 and counts of at least 1; raises ValueError on others."""
        if not names or min(sequences) < 1 or not all(share > 0 for share in shares):
            raise ValueError("a blend needs parts, each with sequences and a share above 0")
        largest = max(shares)
        whole = tuple(max(1, round(share / largest * _SCALE)) for share in shares)
        return cls(seed, tuple(names), tuple(sequences), whole)

    def at(self, place: int) -> Place:
        """What comes at place 0, 1, ... of the run."""
        part, own = deal(self.shares, place)
        epoch, turn = divmod(own, self.sequences[part])
        return Place(part, epoch, permute(turn, self.sequences[part], pass_key(self.seed, self.names[part], epoch)))

    def counts(self, places: int) -> list[int]:
        """How many of the first `places` places each part receives."""
        return _counts(self.shares, places)


def deal(shares: Sequence[int], place: int) -> tuple[int, int]:
    """(part, how many of the earlier places that part received) of a place; shares are whole numbers above 0."""
    first, stop = 0, len(shares)
    while stop - first > 1:
        middle = (first + stop) // 2
        left, total = sum(shares[first:middle]), sum(shares[first:stop])
        before = place * left // total
        if (place + 1) * left // total > before:
            stop, place = middle, before
        else:
            first, place = middle, place - before
    return first, place


def _counts(shares: Sequence[int], places: int) -> list[int]:
    if len(shares) == 1:
        return [places]
    middle = len(shares) // 2
    left = places * sum(shares[:middle]) // sum(shares)
    return _counts(shares[:middle], left) + _counts(shares[middle:], places - left)


def pass_key(seed: int, name: str, epoch: int) -> int:
    """64 bits that name one pass through one part."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{name}\0{epoch}".encode(), digest_size=8).digest(), "little")


def permute(index: int, size: int, key: int) -> int:
    """Where `index` (0 to size - 1) goes under the permutation of that many that `key` names."""
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    low = (1 << half) - 1
    while True:
        left, right = index >> half, index & low
        for turn in range(_ROUNDS):
            left, right = right, left ^ (_mix((key + turn) ^ (right << 8)) & low)
        index = left << half | right
        if index < size:
            return index


def _mix(x: int) -> int:
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _MASK
    return x ^ (x >> 31)
