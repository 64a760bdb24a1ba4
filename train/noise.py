"""Random numbers for jitter and dropout that depend on (seed, step, sequence) and on nothing else.

A generator's state would make a token's noise depend on the micro-batch, the rank and everything drawn before it. Here each
number is a hash of (seed, step, sequence id, place, position, feature): the same under any split of the global batch, after a
resume and when a checkpointed block runs again. Places are small integers that tell apart the draws of one forward pass.

Sequence and position are mixed by the 64-bit finaliser of SplitMix64 (Steele, Lea and Flood 2014), features by a 32-bit
finaliser of the same shape (lowbias32, Wellons 2018), which runs on twice as many lanes. Plain tensor arithmetic: it compiles and
runs on any device, the meta device too. Counters go in by exclusive or: compiled C++ may not add beyond the largest integer. Of a
key the low half alone counts for features: rows whose keys differ there only below the width have the same numbers, each at another
feature. In a batch of 4 million tokens of width 4096 a row has about four such others.

Shape suffixes: B sequences, T positions, R rows, F features.
"""

from __future__ import annotations

import torch
from torch import Tensor


def noise_keys(seed: int, step: int, sequence_ids_B: Tensor) -> Tensor:
    """int64 [B]: one key a sequence. `sequence_ids_B`: integer [B], the index in the global batch (or any id of a sequence)."""
    ids_B = sequence_ids_B.to(torch.int64)
    return _mix64(_mix64(_mix64(torch.full_like(ids_B, seed)) ^ step) ^ ids_B)


def token_keys(noise_key_B: Tensor, length: int, place: int) -> Tensor:
    """int64 [B, T]: one key a position of each sequence, for the draws at `place`."""
    positions_T = torch.arange(length, device=noise_key_B.device)
    return _mix64(_mix64(noise_key_B ^ place)[:, None] ^ positions_T)


def uniform(key_R: Tensor, width: int) -> Tensor:
    """float32 [R, width] in [0, 1), in steps of 2^-24: row r is a stream that belongs to key_R[r] (int64 [R])."""
    feature_F = torch.arange(width, device=key_R.device, dtype=torch.int32)
    mixed_RF = _mix32(key_R.to(torch.int32)[:, None] ^ feature_F)  # of the key the low half
    return ((mixed_RF >> 8) & 0xFFFFFF).to(torch.float32) * 2.0**-24


def _mix64(x: Tensor) -> Tensor:
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -4658895280553007687  # 0xBF58476D1CE4E5B9 as a signed integer
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685  # 0x94D049BB133111EB
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def _mix32(x: Tensor) -> Tensor:
    x = (x ^ ((x >> 16) & 0xFFFF)) * 0x7FEB352D
    x = (x ^ ((x >> 15) & 0x1FFFF)) * -2073254261  # 0x846CA68B as a signed integer
    return x ^ ((x >> 16) & 0xFFFF)
