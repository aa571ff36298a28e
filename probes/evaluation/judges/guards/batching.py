"""Texts in batches of about the same length."""

from collections.abc import Iterator, Sequence
from typing import Final

MAX_BATCH_TOKENS: Final = 8192  # padding included


def batches(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Rows in batches, the shortest first, so that little is padding.

    lengths: tokens of each row. size: rows in a batch, at most. A batch has at most MAX_BATCH_TOKENS tokens, or one
    row.
    """
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) == size or (len(batch) + 1) * lengths[row] > MAX_BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
