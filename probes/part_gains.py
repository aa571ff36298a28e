"""Gains of sites, attention heads and experts: what each part of a block has of the block's gain along the path."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlsurgery.probes.evaluation.mean_intervals import mean_bounds, request_means
from vlsurgery.probes.results import BlockGain
from vlsurgery.probes.weight_parts import WeightParts

Floats = NDArray[np.float64]
# Rows of heads and experts that a result keeps, about .8 MB of JSON: those of the blocks with the largest gains.
MAX_HEAD_ROWS: Final = 4000
DIGITS: Final = 8  # significant ones that a part's numbers are reported with
OF_A_HEAD: Final = ("attn.q", "attn.o")  # sites whose parts are query heads
SHARED_BY_HEADS: Final = ("attn.k", "attn.v")  # those whose parts several query heads may share


class _GainRow(NamedTuple):
    """A row to be. columns: the parts that it sums. site: None for a head with all of its sites."""

    block: int
    site: str | None
    head: int | None
    columns: list[int]


def part_gains(
    values: Floats, requests: Sequence[str], parts: WeightParts, own_key_values: bool
) -> tuple[list[BlockGain], list[str]]:
    """A row a site, a row a head or expert of each, and a row an attention head with all that is its own; and what was
    left out, in words.

    values: [prompts, parts] gains in nats. own_key_values: whether each query head has a key and a value of its own,
    which then count in its row; otherwise heads share them, and they are told at their sites alone.

    A block's sites sum to its gain, and a site's heads or experts to the site's. A site that the class runs without
    telling its heads apart has no rows of heads.
    """
    means = request_means(values, requests)
    overall = means.mean(0)
    total = float(overall.sum())
    block_gains = np.bincount(parts.block, overall)
    rows, left_out = _within_limit(_rows(values, parts, own_key_values), np.abs(block_gains))
    member = np.zeros((values.shape[1], len(rows)))
    for at, row in enumerate(rows):
        member[row.columns, at] = 1
    low, high = mean_bounds(means @ member)
    names = {int(block): part.block for block, part in zip(parts.block, parts.parts, strict=True)}
    found = [
        BlockGain(
            block=names[row.block],
            site=row.site,
            head=row.head,
            gain=_short(gain),
            low=None if low is None else _short(low[at]),
            high=None if high is None else _short(high[at]),
            share=_short(gain / total) if total else None,
            cost=None,
            method="path",
        )
        for at, (row, gain) in enumerate(zip(rows, (overall @ member).tolist(), strict=True))
    ]
    return found, left_out


def _rows(values: Floats, parts: WeightParts, own_key_values: bool) -> list[_GainRow]:
    """Every row, in the order of blocks: each site with its heads, then the heads of all sites together."""
    columns: dict[tuple[int, str], list[int]] = {}
    for at, part in enumerate(parts.parts):
        columns.setdefault((int(parts.block[at]), part.site), []).append(at)
    of_a_head = (*OF_A_HEAD, *SHARED_BY_HEADS) if own_key_values else OF_A_HEAD
    sites: dict[int, list[_GainRow]] = {}
    heads: dict[int, dict[int, list[int]]] = {}
    for (block, site), own in columns.items():
        found = sites.setdefault(block, [])
        found.append(_GainRow(block, site, None, own))
        told = _told_apart(values, parts, own)
        found += [_GainRow(block, site, parts.parts[at].head, [at]) for at in told]
        for at in told if site in of_a_head else ():
            heads.setdefault(block, {}).setdefault(int(parts.parts[at].head or 0), []).append(at)
    whole = {
        block: [_GainRow(block, None, head, own) for head, own in sorted(found.items())]
        for block, found in heads.items()
    }
    return [row for block in sorted(sites) for row in (*sites[block], *whole.get(block, ()))]


def _told_apart(values: Floats, parts: WeightParts, columns: Sequence[int]) -> list[int]:
    """A site's heads or experts; none where some of its gain was not told apart."""
    rest = [at for at in columns if parts.parts[at].head is None]
    return [] if values[:, rest].any() else [at for at in columns if parts.parts[at].head is not None]


def _within_limit(rows: Sequence[_GainRow], sizes: Floats) -> tuple[list[_GainRow], list[str]]:
    """All rows of sites, and those of heads of as many blocks as MAX_HEAD_ROWS allows, largest gains first."""
    count = np.bincount([row.block for row in rows if row.head is not None], minlength=len(sizes))
    order = np.argsort(-sizes, kind="stable")
    fits = np.cumsum(count[order]) <= MAX_HEAD_ROWS
    kept = {int(block) for block in order[fits]}
    left_out = int((count[order[~fits]] > 0).sum())
    note = (
        f"attribution: heads and experts are told of the {int((count[order[fits]] > 0).sum())} blocks with the largest "
        f"gains; {left_out} more blocks have rows of sites alone, so that probe.json stays small"
    )
    return [row for row in rows if row.head is None or row.block in kept], [note] if left_out else []


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
