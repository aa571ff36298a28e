"""Random masks, seeded by site and model: any range of entries can be drawn alone, on any machine, with equal bits."""

import hashlib
import threading
from typing import Final

import numpy as np

# Binary digits to which a keep probability is rounded, and the multiples of its unit (1/65536) that make 1.
PROBABILITY_BITS: Final = 16
PROBABILITY_STEPS: Final = 1 << PROBABILITY_BITS

# Binary digits of a probability up to which drawing single bits is faster than drawing a byte for each entry.
MAX_SINGLE_BITS: Final = 4

# Generators that a thread keeps: more than a site has models.
MAX_GENERATORS: Final = 16


def key_of(seed: int, site: str, model: str) -> int:
    """The 128-bit key of one model's tensor at one site."""
    digest = hashlib.sha256("\0".join((str(seed), site, model)).encode()).digest()
    return int.from_bytes(digest[:16], "little")


def uniform_int16(key: int, start: int, count: int) -> np.ndarray:
    """The numbers `start` to `start + count` of the key's sequence, each uniform in -32768 ... 32767."""
    return _draw(key, start, count, np.dtype("<i2"))


def keep_mask(key: int, start: int, count: int, steps: int) -> np.ndarray:
    """Whether each of the entries `start` to `start + count` is kept, with probability `steps` / 65536, which is
    neither 0 nor 1.

    Where the probability has few binary digits, as many bits decide for each entry. Otherwise a byte decides for all
    but one in 256, and a hash of key and place for those.
    """
    unused = (steps & -steps).bit_length() - 1
    if PROBABILITY_BITS - unused <= MAX_SINGLE_BITS:
        return _keep_mask_by_bits(key, start, count, steps >> unused, PROBABILITY_BITS - unused)
    high, low = divmod(steps, 256)
    drawn = _draw(key, start, count, np.dtype("u1"))
    mask = drawn < high
    if low:
        (edge,) = np.nonzero(drawn == high)
        mask[edge] = _splitmix64(edge.astype(np.uint64) + np.uint64((start + key) % (1 << 64))) & np.uint64(255) < low
    return mask


def _keep_mask_by_bits(key: int, start: int, count: int, steps: int, digits: int) -> np.ndarray:
    """The mask of probability `steps` / 2^digits, 64 entries at a time: an entry is kept where its number of `digits`
    random bits is below `steps`, compared from the lowest digit up."""
    first, skipped = divmod(start, 64)
    words = _draw(key, first * digits, -(-(skipped + count) // 64) * digits, np.dtype("<u8"))
    mask = words[::digits]
    for digit in range(1, digits):
        drawn = words[digit::digits]
        mask = drawn | mask if steps >> digit & 1 else drawn & mask
    bits = np.unpackbits(mask.view(np.uint8), bitorder="little")
    return bits[skipped : skipped + count].view(np.bool_)


def _draw(key: int, start: int, count: int, dtype: np.dtype) -> np.ndarray:
    """The random numbers `start` to `start + count` of the key's sequence, read as this dtype."""
    first, skipped = divmod(start, 8 // dtype.itemsize)
    words = -(-(skipped + count) * dtype.itemsize // 8)
    return _GENERATORS.words(key, first, words).view(dtype)[skipped : skipped + count]


class _Generators(threading.local):
    """A thread's generators, by key, each with its place in its sequence. They are kept because making one takes as
    long as drawing a chunk, and holds the interpreter's lock.

    PCG64 jumps any distance along its sequence in one step (O'Neill 2014, "PCG: a family of simple fast space-efficient
    statistically good algorithms for random number generation"; here with the DXSM output function), so any range is
    drawn without the numbers before it.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[np.random.PCG64DXSM, int]] = {}

    def words(self, key: int, first: int, count: int) -> np.ndarray:
        """The 64-bit words `first` to `first + count` of the key's sequence."""
        generator, place = self._kept.pop(key) if key in self._kept else (np.random.PCG64DXSM(key), 0)
        if place != first:
            generator.advance(first - place)
        drawn: np.ndarray = generator.random_raw(count)
        self._kept[key] = generator, first + count
        if len(self._kept) > MAX_GENERATORS:
            del self._kept[next(iter(self._kept))]
        return drawn.astype("<u8", copy=False)


_GENERATORS: Final = _Generators()


def _splitmix64(numbers: np.ndarray) -> np.ndarray:
    """A hash of 64-bit numbers (the finaliser of SplitMix64: Steele et al. 2014, "Fast splittable pseudorandom number
    generators")."""
    numbers = (numbers ^ numbers >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ numbers >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return numbers ^ numbers >> np.uint64(31)
