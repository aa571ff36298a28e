"""A diff measures every pair once, and sums layers, blocks and towers as one long vector each."""

import json
import re
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor

from vlsurgery.surgery.alignment import Alignment, align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.diff.reader import PairReader
from vlsurgery.surgery.diff.run import diff
from vlsurgery.surgery.diff.spectrum import NUM_SINGULAR_VALUES
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.results import BetweenMetrics, DeltaMetrics, DiffResult, PairMetrics, SliceName
from vlsurgery.surgery.runtime.scratch import ScratchBuffers

if TYPE_CHECKING:
    from conftest import Trio

T = TypeVar("T")
Write = Callable[..., Path]
Llama = Callable[..., dict[str, Tensor]]


def aligned(**paths: Path) -> Alignment:
    return align({role: Checkpoint.open(path) for role, path in paths.items()})


def same(found: DeltaMetrics | BetweenMetrics | None, expected: DeltaMetrics | BetweenMetrics) -> None:
    """Every metric that `expected` has."""
    assert found is not None
    for key, value in expected.model_dump(exclude={"why"}).items():
        if isinstance(value, float):
            assert getattr(found, key) == pytest.approx(value, rel=1e-9, abs=1e-12), key
    assert expected.why.items() <= found.why.items()


def test_pairs_carry_the_metrics_of_their_tensors(
    delta_metrics: Callable[..., DeltaMetrics],
    between_metrics: Callable[..., BetweenMetrics],
    trio: "Trio",
    tmp_path: Path,
) -> None:
    alignment = aligned(base=trio.base, adapted=trio.adapted, safety=trio.safety_native)
    found = diff(alignment)
    assert len(found.pairs) == len(alignment.pairs)
    for pair, expected in zip(found.pairs, alignment.pairs, strict=True):
        tensors = {role: alignment.load(expected, role) for role in expected.parts}
        assert pair.names == {role: part.name for role, part in expected.parts.items()}
        same(pair.metrics.safety, delta_metrics(tensors["adapted"], tensors["safety"]))
        if pair.tower == "text":
            same(pair.metrics.vl, delta_metrics(tensors["base"], tensors["adapted"]))
            same(pair.metrics.between, between_metrics(*(tensors[r] for r in ("base", "adapted", "safety"))))
        else:
            assert pair.metrics.vl is None
            assert pair.metrics.between is None
    found.save(tmp_path / "diff.json")
    assert DiffResult.load(tmp_path / "diff.json") == found
    assert found.checkpoints["base"] == alignment.checkpoints["base"].ref_model


def test_summaries_are_one_long_vector(delta_metrics: Callable[..., DeltaMetrics], trio: "Trio") -> None:
    alignment = aligned(base=trio.base_sharded, adapted=trio.adapted)
    found = diff(alignment)
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
    found = diff(aligned(base=base, adapted=write(tmp_path / "adapted", tensors)))
    assert "1 of 7 blocks: 1.attn." in found.verdict
    assert "not where safety went" in found.verdict
    assert not found.notes
    assert "No text weight differs" in diff(aligned(base=base, adapted=base)).verdict


def test_a_base_that_is_not_the_parent_is_told_with_the_figure(tmp_path: Path, write: Write, llama: Llama) -> None:
    found = diff(aligned(base=write(tmp_path / "base", llama(1)), adapted=write(tmp_path / "adapted", llama(2))))
    (note,) = found.warnings
    assert "hardly looks like" in note
    cosines = [pair.metrics.vl.cosine for pair in found.pairs if len(pair.shape) > 1 and pair.metrics.vl]
    assert f"{median(cosines):.2f}" in note


def test_a_slice_is_named_and_a_grown_vocabulary_noted(tmp_path: Path, write: Write, llama: Llama) -> None:
    grown = llama(1, vocab=43)
    base = {name: tensor[:40].clone() if tensor.shape[0] == 43 else tensor for name, tensor in grown.items()}
    found = diff(aligned(base=write(tmp_path / "base", base), adapted=write(tmp_path / "adapted", grown)))
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
        diff(aligned(base=write(tmp_path / "base", broken), adapted=write(tmp_path / "adapted", llama(1))))


def test_progress_counts_every_pair(trio: "Trio") -> None:
    seen: list[object] = []

    def progress(items: Iterable[T], label: str, total: int | None = None) -> Iterable[T]:
        seen.append(total)
        for item in items:
            seen.append(label)
            yield item

    found = diff(aligned(base=trio.base, adapted=trio.adapted), progress=progress)
    assert seen == [len(found.pairs), *["comparing weights"] * len(found.pairs)]


SPECTRAL = ("singular_values", "singular_values_error", "stable_rank", "effective_rank", "energy", "base_overlap")


def test_full_finds_the_spectrum_of_every_matrix(trio: "Trio") -> None:
    alignment = aligned(base=trio.base, adapted=trio.adapted, safety=trio.safety)
    for pair, partner in zip(diff(alignment).pairs, alignment.pairs, strict=True):
        for delta, before, after in ((pair.metrics.vl, "base", "adapted"), (pair.metrics.safety, "adapted", "safety")):
            if delta is None:
                continue
            moved = (alignment.load(partner, after) - alignment.load(partner, before)).double()
            if len(pair.shape) != 2 or not moved.any():
                assert delta.singular_values is None
                assert delta.why["singular_values"].startswith(("a vector", "a stack", "the delta is 0"))
                continue
            exact = torch.linalg.svdvals(moved)
            assert delta.singular_values == pytest.approx(exact.tolist(), rel=1e-6, abs=1e-6 * float(exact[0]))
            assert delta.stable_rank == pytest.approx(float(exact.square().sum() / exact[0] ** 2), rel=1e-5)
            assert delta.base_overlap is not None
            assert 0 <= delta.base_overlap <= 1


def test_norms_leave_out_spectra_and_nothing_else(trio: "Trio") -> None:
    alignment = aligned(base=trio.base, adapted=trio.adapted, safety=trio.safety)
    full, norms = diff(alignment), diff(alignment, level="norms")
    assert norms.towers == full.towers
    assert norms.verdict == full.verdict
    for one, other in zip(norms.pairs, full.pairs, strict=True):
        for delta in ("vl", "safety"):
            if getattr(one.metrics, delta) is not None:
                same(getattr(other.metrics, delta), getattr(one.metrics, delta))
                assert getattr(other.metrics, delta).heads == getattr(one.metrics, delta).heads
        dumped = one.metrics.model_dump()
        assert not any(key in (dumped[delta] or {}) for delta in ("vl", "safety") for key in SPECTRAL)


def test_spectra_of_streamed_matrices_equal_those_in_memory(
    tmp_path: Path, write: Write, llama: Llama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A matrix that is read again for every pass has the spectrum of one in memory."""
    paths = {role: write(tmp_path / role, llama(seed)) for seed, role in enumerate(("base", "adapted", "safety"))}
    in_memory = diff(aligned(**paths))
    monkeypatch.setattr("vlsurgery.surgery.diff.tasks.MAX_RESIDENT_BYTES", 0)
    monkeypatch.setattr("vlsurgery.surgery.diff.tasks.MAX_INPUT_BYTES", 0)
    monkeypatch.setattr("vlsurgery.surgery.diff.matrices.READ_SIZE", 50)
    streamed = {(pair.layer, pair.component): pair.metrics for pair in diff(aligned(**paths)).pairs}
    for pair in in_memory.pairs:
        metrics = streamed[pair.layer, pair.component]
        for one, other in ((pair.metrics.vl, metrics.vl), (pair.metrics.between, metrics.between)):
            assert one is not None
            assert other is not None
            for key, value in one.model_dump().items():
                if isinstance(value, float):
                    assert getattr(other, key) == pytest.approx(value, rel=1e-4, abs=1e-5), key


STORED = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


@pytest.mark.parametrize(
    "stored", [*[(dtype,) * 3 for dtype in STORED], STORED[:3], STORED[:-4:-1], (None, *STORED[:2])], ids=str
)
def test_matrices_filled_while_summing_up_and_matrices_read_again_have_the_same_metrics(
    stored: tuple[torch.dtype | None, ...],
    tmp_path: Path,
    write: Write,
    llama: Llama,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of matrices that are decomposed exactly or are too large for that, and are read range by range; base lacks them
    where its dtype is None."""
    monkeypatch.setattr("vlsurgery.surgery.diff.tasks.READ_SIZE", 5000)
    shapes = {"model.layers.0.mlp.up_proj.weight": (640, 530), "model.layers.0.mlp.down_proj.weight": (70, 150)}
    kept: dict[tuple[str, tuple[int, ...]], Tensor] = {}
    paths = {}
    for number, (role, dtype) in enumerate(zip(("base", "adapted", "safety"), stored, strict=True)):
        tensors = {name: tensor for name, tensor in llama(0).items() if name not in shapes}
        for name, shape in shapes.items():
            noise = torch.randn(3, *shape, generator=torch.Generator().manual_seed(4))
            noise *= torch.tensor([1, 0.2, 0.1])[:, None, None]
            if dtype is not None:
                tensors[name] = kept[role, shape] = noise[: number + 1].sum(0).to(dtype)
        paths[role] = write(tmp_path / role, tensors)

    def measured() -> dict[tuple[int, ...], PairMetrics]:
        pairs = {tuple(pair.shape): pair.metrics for pair in diff(aligned(**paths)).pairs}
        return {shape: pairs[shape] for shape in shapes.values()}

    filled = measured()
    monkeypatch.setattr("vlsurgery.surgery.diff.tasks.MAX_INPUT_BYTES", 0)
    again = measured()
    for shape, (delta, start, end) in product(filled, (("vl", "base", "adapted"), ("safety", "adapted", "safety"))):
        one, other = getattr(filled[shape], delta), getattr(again[shape], delta)
        assert (one is None) == (other is None) == ((start, shape) not in kept)
        if one is None:
            continue
        for key in ("relative", "cosine", "rms", "max_abs", "changed", "mean_shift"):
            assert getattr(one, key) == pytest.approx(getattr(other, key), rel=1e-12)
        assert one.singular_values == pytest.approx(other.singular_values, rel=1e-5)
        assert one.base_overlap == pytest.approx(other.base_overlap, rel=1e-3)
        difference = kept[end, shape].double().numpy() - kept[start, shape].double().numpy()
        missing = np.linalg.svd(difference, compute_uv=False)[:NUM_SINGULAR_VALUES] - one.singular_values
        assert -1e-5 < missing.min() <= missing.max() < one.singular_values_error


def test_a_diff_is_the_same_every_time(trio: "Trio") -> None:
    """Whatever the threads do first."""
    alignment = aligned(base=trio.base, adapted=trio.adapted, safety=trio.safety)
    assert diff(alignment).pairs == diff(alignment).pairs


def test_heads_are_told_by_the_config(delta_metrics: Callable[..., DeltaMetrics], trio: "Trio") -> None:
    """Of q, k and v rows, of o columns; other tensors have none."""
    alignment = aligned(base=trio.base, adapted=trio.adapted)
    for pair, partner in zip(diff(alignment, level="norms").pairs, alignment.pairs, strict=True):
        metrics = pair.metrics.vl
        if metrics is None:
            continue
        if not pair.component.startswith("attn.") or pair.component.endswith("norm"):
            assert metrics.heads is None
            continue
        assert metrics.heads is not None
        before, after = (alignment.load(partner, role) for role in ("base", "adapted"))
        dim = int(pair.component == "attn.o")
        for head, one, other in zip(metrics.heads, before.chunk(2, dim), after.chunk(2, dim), strict=True):
            assert head.relative == pytest.approx(delta_metrics(one, other).relative, rel=1e-9)


def test_a_config_without_heads_gives_the_reason(tmp_path: Path, write: Write, llama: Llama) -> None:
    found = diff(aligned(base=write(tmp_path / "base", llama(1)), adapted=write(tmp_path / "adapted", llama(2))))
    metrics = next(pair.metrics.vl for pair in found.pairs if pair.component == "attn.q")
    assert metrics is not None
    assert metrics.heads is None
    assert "does not say how many heads" in metrics.why["heads"]
    assert json.loads(metrics.model_dump_json())["heads"] is None


def test_the_tasks_of_a_large_tensor_add_up(
    tmp_path: Path, write: Write, llama: Llama, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = {role: write(tmp_path / role, llama(seed)) for seed, role in enumerate(("base", "adapted", "safety"))}
    whole = diff(aligned(**paths), level="norms")
    monkeypatch.setattr("vlsurgery.surgery.diff.tasks.TASK_SIZE", 40)
    monkeypatch.setattr("vlsurgery.surgery.diff.tasks.READ_SIZE", 24)
    divided = diff(aligned(**paths), level="norms")
    for one, other in zip(whole.towers, divided.towers, strict=True):
        same(other.metrics.vl, one.metrics.vl)  # type: ignore[arg-type]
        same(other.metrics.between, one.metrics.between)  # type: ignore[arg-type]


def test_the_verdict_says_what_is_left_beyond_the_null(tmp_path: Path, write: Write, llama: Llama) -> None:
    base = llama(1)
    moved = {name: tensor + 0.01 * other for (name, tensor), other in zip(base.items(), llama(2).values(), strict=True)}
    undone = {name: (tensor + 0.2 * (moved[name] - tensor)) for name, tensor in base.items()}
    paths = {
        role: write(tmp_path / role, tensors)
        for role, tensors in (("base", base), ("adapted", moved), ("safety", undone), ("other", llama(3)))
    }
    against = diff(aligned(base=paths["base"], adapted=paths["adapted"], safety=paths["safety"])).verdict
    assert "cosine with the VL delta is -1.000" in against
    assert "goes against adaptation beyond" in against
    assert "made from the base" not in against
    sibling = {
        name: tensor + 0.01 * other for (name, tensor), other in zip(base.items(), llama(5).values(), strict=True)
    }
    paths["sibling"] = write(tmp_path / "sibling", sibling)
    beside = diff(aligned(base=paths["base"], adapted=paths["adapted"], safety=paths["sibling"])).verdict
    assert re.search(r"takes (9[5-9]|10[0-4])% of the VL delta back, as if the safety checkpoint was made from", beside)
    unrelated = diff(
        aligned(base=paths["base"], adapted=write(tmp_path / "a", llama(2)), safety=paths["other"])
    ).verdict
    assert "nothing is left beyond" in unrelated
    assert "beyond" not in diff(aligned(base=paths["base"], adapted=paths["adapted"])).verdict


def test_unrelated_models_have_a_null_of_what_they_share(tmp_path: Path, write: Write, llama: Llama) -> None:
    """Their leading directions overlap because `adapted` is in both deltas, and by no more than that."""
    generator, folders = torch.Generator().manual_seed(4), {}
    for role in ("base", "adapted", "safety"):
        tensors = {name: torch.randn(each.shape, generator=generator) for name, each in llama().items()}
        folders[role] = write(tmp_path / role, tensors)
    compared = 0
    for pair in diff(aligned(**folders)).pairs:
        between = pair.metrics.between
        if between is not None and between.subspace_left is not None:
            assert between.subspace_null is not None
            assert between.cosine == pytest.approx(-0.5, abs=0.15)
            assert between.subspace_left == pytest.approx(between.subspace_null.left, abs=0.35)
            compared += 1
    assert compared


def test_a_pair_too_large_for_the_scratch_is_loaded_into_one_buffer(tmp_path: Path, write: Write, llama: Llama) -> None:
    """A second buffer beside it would take the peak of a full diff over its limit."""
    alignment = aligned(base=write(tmp_path / "base", llama(1)), adapted=write(tmp_path / "adapted", llama(2)))
    pair = max(alignment.pairs, key=lambda pair: pair.numel)
    reader = PairReader(alignment, pair, {"base": "base", "adapted": "adapted"}, ScratchBuffers(max_bytes=1))
    first = reader.load("base")
    assert first.tolist() == alignment.load(pair, "base").reshape(-1).tolist()
    second = reader.load("adapted", "base")
    assert np.shares_memory(first, second)
