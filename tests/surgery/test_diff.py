"""A diff measures every pair once, and sums layers, blocks and towers as one long vector each."""

from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, TypeVar

import pytest
import torch
from torch import Tensor

from surgery.alignment import align
from surgery.checkpoint import Checkpoint
from surgery.diff import diff
from surgery.errors import CheckpointError
from surgery.results import DiffResult, SliceName
from surgery.roles import safety_role
from surgery.tally import between_metrics, delta_metrics

if TYPE_CHECKING:
    from conftest import Trio

T = TypeVar("T")
Write = Callable[..., Path]
Llama = Callable[..., dict[str, Tensor]]


def opened(**paths: Path) -> dict[str, Checkpoint]:
    return {role: Checkpoint.open(path) for role, path in paths.items()}


def test_pairs_carry_the_metrics_of_their_tensors(trio: "Trio", tmp_path: Path) -> None:
    checkpoints = opened(base=trio.base, adapted=trio.adapted, safety=trio.safety_native)
    found = diff(checkpoints)
    alignment = align(checkpoints)
    assert len(found.pairs) == len(alignment.pairs)
    for pair, expected in zip(found.pairs, alignment.pairs, strict=True):
        tensors = {role: alignment.load(expected, role) for role in expected.parts}
        assert pair.names == {role: part.name for role, part in expected.parts.items()}
        assert pair.metrics.safety == delta_metrics(tensors["adapted"], tensors["safety"])
        if pair.tower == "text":
            assert pair.metrics.vl == delta_metrics(tensors["base"], tensors["adapted"])
            assert pair.metrics.between == between_metrics(*(tensors[r] for r in ("base", "adapted", "safety")))
        else:
            assert pair.metrics.vl is None
            assert pair.metrics.between is None
    found.save(tmp_path / "diff.json")
    assert DiffResult.load(tmp_path / "diff.json") == found
    assert found.checkpoints["base"] == checkpoints["base"].ref_model


def test_summaries_are_one_long_vector(trio: "Trio") -> None:
    checkpoints = opened(base=trio.base_sharded, adapted=trio.adapted)
    found = diff(checkpoints)
    alignment = align(checkpoints)
    groups = {"layers": lambda p: str(p.site.layer), "blocks": lambda p: p.site.block, "towers": lambda p: p.site.tower}
    for kind, key_of in groups.items():
        summaries = {summary.key: summary for summary in getattr(found, kind)}
        for key, summary in summaries.items():
            members = [pair for pair in alignment.pairs if key_of(pair) == key]
            vectors = [
                torch.cat([alignment.load(pair, role).reshape(-1) for pair in members]) for role in ("base", "adapted")
            ]
            expected = delta_metrics(*vectors)
            assert summary.parameters == vectors[0].numel()
            assert summary.metrics.vl is not None
            assert summary.metrics.vl.relative == pytest.approx(expected.relative, rel=1e-9)
            assert summary.metrics.vl.cosine == pytest.approx(expected.cosine, rel=1e-9)
            assert summary.metrics.vl.max_abs == expected.max_abs
    assert [summary.key for summary in found.layers] == ["0", "1"]
    assert {summary.key for summary in found.blocks} == {"embed", "head", "norm", "0.attn", "0.mlp", "1.attn", "1.mlp"}
    assert {summary.layer for summary in found.blocks} == {None, 0, 1}


def test_the_verdict_names_the_block_that_moved_and_claims_no_more(tmp_path: Path, write: Write, llama: Llama) -> None:
    tensors = llama(1)
    base = write(tmp_path / "base", tensors)
    tensors["model.layers.1.self_attn.v_proj.weight"] += 1
    found = diff(opened(base=base, adapted=write(tmp_path / "adapted", tensors)))
    assert "1 of 7 blocks: 1.attn." in found.verdict
    assert "not where safety went" in found.verdict
    assert not found.notes
    assert "No text weight differs" in diff(opened(base=base, adapted=base)).verdict


def test_a_base_that_is_not_the_parent_is_told_with_the_figure(tmp_path: Path, write: Write, llama: Llama) -> None:
    found = diff(opened(base=write(tmp_path / "base", llama(1)), adapted=write(tmp_path / "adapted", llama(2))))
    (note,) = found.warnings
    assert "hardly looks like" in note
    cosines = [pair.metrics.vl.cosine for pair in found.pairs if len(pair.shape) > 1 and pair.metrics.vl]
    assert f"{median(cosines):.2f}" in note


def test_a_slice_is_named_and_a_grown_vocabulary_noted(tmp_path: Path, write: Write, llama: Llama) -> None:
    grown = llama(1, vocab=43)
    base = {name: tensor[:40].clone() if tensor.shape[0] == 43 else tensor for name, tensor in grown.items()}
    found = diff(opened(base=write(tmp_path / "base", base), adapted=write(tmp_path / "adapted", grown)))
    embed = next(pair for pair in found.pairs if pair.component == "embed")
    assert embed.names == {
        "base": "model.embed_tokens.weight",
        "adapted": SliceName(name="model.embed_tokens.weight", slice=[(0, 40), (0, 16)]),
    }
    assert embed.metrics.vl is not None
    assert embed.metrics.vl.changed == 0
    assert sum("3 are its own" in note for note in found.notes) == 2


def test_nan_is_named_with_role_and_tensor(tmp_path: Path, write: Write, llama: Llama) -> None:
    broken = llama(1)
    broken["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan
    with pytest.raises(CheckpointError, match=r"^base .*model\.layers\.1\.mlp\.up_proj\.weight: holds NaN"):
        diff(opened(base=write(tmp_path / "base", broken), adapted=write(tmp_path / "adapted", llama(1))))


def test_progress_counts_every_pair(trio: "Trio") -> None:
    seen: list[object] = []

    def track(items: Iterable[T], label: str, total: int | None = None) -> Iterable[T]:
        seen.append(total)
        for item in items:
            seen.append(label)
            yield item

    found = diff(opened(base=trio.base, adapted=trio.adapted), track)
    assert seen == [len(found.pairs), *["comparing weights"] * len(found.pairs)]


def test_the_safety_role_is_the_plain_one_or_the_first() -> None:
    assert safety_role(["base", "adapted"]) is None
    assert safety_role(["base", "safety:b", "safety:a"]) == "safety:b"
    assert safety_role(["safety:a", "safety"]) == "safety"
