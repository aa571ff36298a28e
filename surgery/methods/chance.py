"""Randomness that any stretch of any site can be drawn from alone, on any machine, with the same outcome."""

import hashlib
from typing import Final

import numpy as np

# 16-bit numbers in one word of a generator.
_PER_WORD: Final = 4

# Chances are counted in these: a keep probability is rounded to a multiple of 1/65536.
STEPS: Final = 1 << 16

# The lowest of the numbers that are drawn.
LOWEST: Final = -(1 << 15)


def key_of(seed: int, site: str, model: str) -> int:
    """A key of 128 bits for one model's tensor at one site."""
    digest = hashlib.sha256("\0".join((str(seed), site, model)).encode()).digest()
    return int.from_bytes(digest[:16], "little")


def uniform(key: int, start: int, count: int) -> np.ndarray:
    """The numbers `start` to `start + count` of the key's sequence, each uniform in -32768 ... 32767.

    PCG64 can be moved along its sequence by any distance at once (O'Neill 2014, "PCG: a family of simple fast
    space-efficient statistically good algorithms for random number generation"; here with the DXSM output function), so
    any stretch is had without what comes before it.
    """
    first, skipped = divmod(start, _PER_WORD)
    words = -(-(skipped + count) // _PER_WORD)
    raw = np.random.PCG64DXSM(key).advance(first).random_raw(words)
    return raw.astype("<u8", copy=False).view("<i2")[skipped : skipped + count]
