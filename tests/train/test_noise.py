"""train.noise against SplitMix64's finaliser in Python integers, and against the moments of the uniform distribution."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from train.noise import noise_keys, token_keys, uniform

MASK = 2**64 - 1


def finalise(x: int) -> int:
    x &= MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def mix32(x: int) -> int:
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return x ^ (x >> 16)


@given(st.integers(0, 2**62), st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 2**20))
def test_numbers_agree_with_python_integers(seed, step, sequence, place):
    key = finalise(finalise(finalise(seed) ^ step) ^ sequence)
    got = noise_keys(seed, step, torch.tensor([sequence]))
    assert int(got) & MASK == key
    token = [finalise(finalise(key ^ place) ^ position) for position in range(3)]
    assert [int(x) & MASK for x in token_keys(got, 3, place)[0]] == token
    wanted = [[(mix32((x & 0xFFFFFFFF) ^ feature) >> 8) / 2**24 for feature in range(5)] for x in token]
    assert uniform(token_keys(got, 3, place)[0], 5).tolist() == wanted


def test_numbers_are_uniform_and_uncorrelated():
    u = uniform(token_keys(noise_keys(1, 2, torch.arange(8)), 64, 3).flatten(), 256).double()
    n = u.numel()
    assert abs(u.mean() - 1 / 2) < 4 * (1 / 12 / n) ** 0.5
    assert abs(u.var() - 1 / 12) < 4 * (1 / 180 / n) ** 0.5
    centred = u - 1 / 2
    for shifted in (centred[1:] * centred[:-1], centred[:, 1:] * centred[:, :-1], centred[64:] * centred[:-64]):
        assert abs(shifted.mean()) < 4 / 12 / shifted.numel() ** 0.5


def test_a_sequence_keeps_its_numbers_in_any_company():
    ids = torch.tensor([7, 3, 9])
    together = token_keys(noise_keys(1, 5, ids), 16, 2)
    for row, one in zip(together, ids, strict=True):
        assert torch.equal(token_keys(noise_keys(1, 5, one[None]), 16, 2)[0], row)
