"""Randomness that any stretch of any site can be drawn from alone, on any machine, with the same outcome."""

import hashlib
import threading
from typing import Final

import numpy as np

# Chances are counted in these: a keep probability is rounded to a multiple of 1/65536.
DIGITS: Final = 16
STEPS: Final = 1 << DIGITS

# Up to so many binary digits of a probability, drawing them one by one is faster than drawing a byte.
FEW: Final = 4

# Generators that a thread keeps: more than a site has models.
HELD: Final = 16


def key_of(seed: int, site: str, model: str) -> int:
    """A key of 128 bits for one model's tensor at one site."""
    digest = hashlib.sha256("\0".join((str(seed), site, model)).encode()).digest()
    return int.from_bytes(digest[:16], "little")


def uniform(key: int, start: int, count: int) -> np.ndarray:
    """The numbers `start` to `start + count` of the key's sequence, each uniform in -32768 ... 32767."""
    return _stretch(key, start, count, np.dtype("<i2"))


def kept(key: int, start: int, count: int, steps: int) -> np.ndarray:
    """For each of the entries `start` to `start + count`, whether it is kept, with a probability of `steps` / 65536,
    which is neither 0 nor 1.

    Where the probability has few binary digits, as many bits decide for each entry. Else a byte does for all but one in
    256, and a hash of key and place for those.
    """
    unused = (steps & -steps).bit_length() - 1
    if DIGITS - unused <= FEW:
        return _kept_by_bits(key, start, count, steps >> unused, DIGITS - unused)
    high, low = divmod(steps, 256)
    drawn = _stretch(key, start, count, np.dtype("u1"))
    mask = drawn < high
    if low:
        (edge,) = np.nonzero(drawn == high)
        mask[edge] = _mixed(edge.astype(np.uint64) + np.uint64((start + key) % (1 << 64))) & np.uint64(255) < low
    return mask


def _kept_by_bits(key: int, start: int, count: int, steps: int, digits: int) -> np.ndarray:
    """The same with a probability of `steps` / 2^digits, for 64 entries at a time: whether the number that `digits`
    random bits are is below `steps`, told from the lowest digit up."""
    first, skipped = divmod(start, 64)
    words = _stretch(key, first * digits, -(-(skipped + count) // 64) * digits, np.dtype("<u8"))
    mask = words[::digits]
    for digit in range(1, digits):
        drawn = words[digit::digits]
        mask = drawn | mask if steps >> digit & 1 else drawn & mask
    bits = np.unpackbits(mask.view(np.uint8), bitorder="little")
    return bits[skipped : skipped + count].view(np.bool_)


def _stretch(key: int, start: int, count: int, dtype: np.dtype) -> np.ndarray:
    """Random numbers by their places in the key's sequence."""
    first, skipped = divmod(start, 8 // dtype.itemsize)
    words = -(-(skipped + count) * dtype.itemsize // 8)
    return _SEQUENCES.words(key, first, words).view(dtype)[skipped : skipped + count]


class _Sequences(threading.local):
    """Each thread's generators, by key, and how far they have come: making one takes as long as a block's numbers do,
    and no other thread can run meanwhile.

    PCG64 can be moved along its sequence by any distance at once (O'Neill 2014, "PCG: a family of simple fast
    space-efficient statistically good algorithms for random number generation"; here with the DXSM output function), so
    any stretch is had without what comes before it.
    """

    def __init__(self) -> None:
        self._held: dict[int, tuple[np.random.PCG64DXSM, int]] = {}

    def words(self, key: int, first: int, count: int) -> np.ndarray:
        """The 64-bit words `first` to `first + count` of the key's sequence."""
        generator, place = self._held.pop(key) if key in self._held else (np.random.PCG64DXSM(key), 0)
        if place != first:
            generator.advance(first - place)
        drawn: np.ndarray = generator.random_raw(count)
        self._held[key] = generator, first + count
        if len(self._held) > HELD:
            del self._held[next(iter(self._held))]
        return drawn.astype("<u8", copy=False)


_SEQUENCES: Final = _Sequences()


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """A hash of 64-bit numbers (the finaliser of SplitMix64: Steele et al. 2014, "Fast splittable pseudorandom number
    generators")."""
    numbers = (numbers ^ numbers >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ numbers >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return numbers ^ numbers >> np.uint64(31)
