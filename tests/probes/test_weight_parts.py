"""A block's slope, told part by part: the parts sum to it, and each is the slope of its own rows or columns."""

import pytest
import torch

from vlsurgery.probes.gradients import Gradients
from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.models import load
from vlsurgery.probes.part_gains import part_gains
from vlsurgery.probes.prompt_slopes import PromptSlopes
from vlsurgery.probes.scoring import refusal_choices, refusal_log_odds
from vlsurgery.probes.weight_parts import WeightPart, WeightParts, own_key_values
from vlsurgery.surgery.alignment import align

HEAD_WIDTH = 8  # of the trio's 4 query and 2 key-value heads


@pytest.fixture(scope="module")
def live(trio):
    checkpoints = {role: trio.checkpoints[role] for role in ("adapted", "base")}
    return InMemoryMerge(load(checkpoints["adapted"]), align(checkpoints), ("base",))


@pytest.fixture(scope="module")
def parts(live):
    return WeightParts.finest(live)


@pytest.fixture(scope="module")
def batches(live, asked):
    one, other = ([torch.tensor([token])] * len(asked) for token in (5, 9))
    return refusal_choices(live.chat, asked, one, other)


@pytest.fixture(scope="module")
def slopes(live, parts, batches, asked):
    return Gradients(live, parts).at_parts(live.everywhere(base=0.3), batches, [prompt.id for prompt in asked])


def test_the_parts_of_every_block_sum_to_the_blocks_own_slope(live, parts, batches, asked, slopes):
    blocks = Gradients(live).at(live.everywhere(base=0.3), batches, [prompt.id for prompt in asked])
    summed = parts.of_blocks(slopes[1], len(live.blocks))
    torch.testing.assert_close(summed.float(), blocks.jacobian, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(slopes[0].jacobian, blocks.jacobian, rtol=1e-5, atol=1e-5)


def test_every_head_of_a_grouped_query_attention_has_its_own_part(parts):
    of_layer = {(part.site, part.head) for part in parts.parts if part.block == "1.attn"}
    heads = {("attn.q", 4), ("attn.k", 2), ("attn.v", 2), ("attn.o", 4)}
    expected = {(site, head) for site, count in heads for head in (None, *range(count))}
    assert of_layer == expected | {("norm.attn", None)}


@pytest.mark.parametrize(("site", "head"), [("attn.q", 3), ("attn.k", 1), ("attn.v", 0), ("attn.o", 2)])
def test_a_heads_slope_is_that_of_its_own_entries(live, parts, batches, slopes, site, head):
    """By finite differences, with the entries moved by hand."""
    entry = next(e for e in live.entries if e.pair.site.key == f"text.1.{site}")
    weight = entry.of(entry.parameter.data)
    base, adapted = (live.alignment.load(entry.pair, role).float() for role in ("base", "adapted"))
    own = torch.zeros_like(base)
    cut = slice(head * HEAD_WIDTH, (head + 1) * HEAD_WIDTH)
    at = (slice(None), cut) if site == "attn.o" else (cut,)
    own[at] = (base - adapted)[at]
    ends = []
    with live.at(live.everywhere(base=0.3)) as chat:
        for step in (-0.05, 0.05):
            weight += step * own
            ends.append(refusal_log_odds(chat, batches))
            weight -= step * own
    found = slopes[1][:, parts.parts.index(WeightPart("1.attn", site, head)), 0]
    torch.testing.assert_close(found, (ends[1] - ends[0]) / 0.1, rtol=0.02, atol=3e-4)


def test_rows_add_up_from_heads_to_sites_to_blocks(live, parts, asked, slopes):
    values, requests = slopes[1][..., 0].numpy(), [prompt.request for prompt in asked]
    rows, left_out = part_gains(values, requests, parts, own_key_values(live.alignment, live.like))
    assert left_out == []
    by = {(row.block, row.site, row.head): row.gain for row in rows}
    whole = parts.summed(values, len(live.blocks))
    for block in live.blocks:
        sites = {site: gain for (name, site, head), gain in by.items() if (name, head) == (block, None)}
        expected = by_request(whole[:, live.blocks.index(block)], requests)
        assert sum(sites.values()) == pytest.approx(expected, rel=1e-5, abs=1e-7)
        for site, gain in sites.items():
            heads = [
                found for (name, at, head), found in by.items() if (name, at) == (block, site) and head is not None
            ]
            assert not heads or sum(heads) == pytest.approx(gain, rel=1e-5, abs=1e-7)
    together = by["2.attn", None, 1]
    assert together == pytest.approx(by["2.attn", "attn.q", 1] + by["2.attn", "attn.o", 1], rel=1e-5, abs=1e-7)
    assert sum(row.share for row in rows if row.head is None) == pytest.approx(1, rel=1e-5)


def by_request(values, requests):
    groups = {}
    for value, request in zip(values, requests, strict=True):
        groups.setdefault(request, []).append(value)
    return sum(sum(group) / len(group) for group in groups.values()) / len(groups)


def test_beyond_the_limit_the_blocks_with_the_largest_gains_keep_their_heads(live, parts, asked, slopes, monkeypatch):
    monkeypatch.setattr("vlsurgery.probes.part_gains.MAX_HEAD_ROWS", 40)
    values, requests = slopes[1][..., 0].numpy(), [prompt.request for prompt in asked]
    rows, (note,) = part_gains(values, requests, parts, own_key_values=False)
    gains = {}
    for row in rows:
        if row.head is None:
            gains[row.block] = gains.get(row.block, 0) + row.gain
    attention = sorted((block for block in gains if block.endswith("attn")), key=lambda block: -abs(gains[block]))
    assert {row.block for row in rows if row.head is not None} == set(attention[:2])
    assert "2 blocks" in note
    assert "1 more" in note


def test_a_site_whose_heads_were_not_told_apart_has_no_rows_of_heads(live, parts, asked, slopes):
    values = slopes[1][..., 0].numpy().copy()
    values[:, parts.parts.index(WeightPart("1.attn", "attn.q"))] = 1.0
    rows, _ = part_gains(values, [prompt.request for prompt in asked], parts, own_key_values=False)
    assert not [row for row in rows if (row.block, row.site) == ("1.attn", "attn.q") and row.head is not None]
    assert [row for row in rows if (row.block, row.site) == ("1.attn", "attn.o") and row.head is not None]


def test_where_prompts_run_one_by_one_only_blocks_are_told(live, parts, batches, asked, monkeypatch):
    def refuse(*_):
        raise ValueError("mixed")

    monkeypatch.setattr(PromptSlopes, "_by_prompt", refuse)
    few = [batch for batch in batches if "pixel_values" not in batch.inputs]
    made, fine = Gradients(live, parts).at_parts(live.everywhere(base=0.3), few, [prompt.id for prompt in asked])
    assert fine is None
    assert made.jacobian.abs().max() > 0
