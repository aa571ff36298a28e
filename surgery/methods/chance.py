"""Randomness that any stretch of any site can be drawn from alone, on any machine, with the same outcome."""

import hashlib
from typing import Final

import numpy as np

# 16-bit numbers that one step of Philox's counter makes: four words of 64 bits.
_PER_STEP: Final = 16

# Chances are counted in these: a keep probability is rounded to a multiple of 1/65536.
STEPS: Final = 1 << 16


def key_of(seed: int, site: str, model: str) -> int:
    """A key of 128 bits for one model's tensor at one site."""
    digest = hashlib.sha256("\0".join((str(seed), site, model)).encode()).digest()
    return int.from_bytes(digest[:16], "little")


def uniform(key: int, start: int, count: int) -> np.ndarray:
    """The numbers `start` to `start + count` of the key's sequence, each uniform in 0 ... 65535.

    Philox is a function of key and counter (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), so any
    stretch of the sequence is had without what comes before it.
    """
    first, skipped = divmod(start, _PER_STEP)
    words = -(-(skipped + count) // _PER_STEP) * 4
    raw = np.random.Philox(key=key, counter=first).random_raw(words)
    return raw.astype("<u8", copy=False).view("<u2")[skipped : skipped + count]
