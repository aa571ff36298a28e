"""Inside of blocks: what the map, heads, spectra and overlap draw is what results hold, with their nulls."""

from types import SimpleNamespace

import numpy as np
import pytest

from vlsurgery.figures import heads, overlap, safety_map, spectra, weight_change
from vlsurgery.probes.results import (
    AttributionNull,
    BlockGain,
    BlockNull,
    Estimate,
    Interaction,
    ProbeResult,
    Transplant,
)
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.results import (
    BetweenMetrics,
    DeltaMetrics,
    DiffResult,
    HeadMetrics,
    Null,
    Pair,
    PairMetrics,
    Sides,
)

LAYERS, HEADS = 3, 4


def part(block: str, site: str | None, head: int | None, gain: float) -> BlockGain:
    return BlockGain(
        block=block,
        site=site,
        head=head,
        gain=gain,
        low=gain - 0.1,
        high=gain + 0.1,
        share=gain / 4,
        cost=None,
        method="path",
    )


@pytest.fixture
def probe(make: SimpleNamespace) -> ProbeResult:
    """A probe whose layers have sites and heads; 1.mlp passes the null, and map and transplant disagree on 1.attn."""
    plain = make.probe()
    rows = []
    for layer in range(LAYERS):
        for at, site in enumerate(("attn.o", "attn.q")):
            rows.append(part(f"{layer}.attn", site, None, 0.4 + at))
            rows += [part(f"{layer}.attn", site, head, (0.4 + at) / HEADS) for head in range(HEADS)]
        rows += [part(f"{layer}.attn", None, head, 0.1 * head + layer) for head in range(HEADS)]
        rows += [part(f"{layer}.mlp", "mlp.down", None, 0.2), part(f"{layer}.mlp", "norm.mlp", None, 0.1)]
    tests = [
        BlockNull(
            block=row.block,
            difference=2.0,
            t=4.0 if row.block == "1.mlp" else 1.0,
            p=0.01 if row.block == "1.mlp" else 0.6,
        )
        for row in plain.transplants
    ]
    moved = [
        Transplant(block=row.block, gain=row.gain, beyond_map=Estimate(value=v, low=v - 0.2, high=v + 0.2, n=9))
        for row in plain.transplants
        for v in [-0.5 if row.block == "1.attn" else 0.1]
    ]
    together = Interaction(
        blocks=["1.mlp", "1.attn"],
        together=Estimate(value=3.0, low=2.0, high=4.0, n=9),
        singles=Estimate(value=1.0, low=0.5, high=1.5, n=9),
        difference=Estimate(value=2.0, low=1.0, high=3.0, n=9),
    )
    return plain.model_copy(
        update={
            "attribution": [*plain.attribution, *rows],
            "transplants": moved,
            "attribution_null": AttributionNull(lost=9, controls=8, draws=2000, threshold=2.0, blocks=tests),
            "interaction": together,
        }
    )


@pytest.fixture
def diff(make: SimpleNamespace) -> DiffResult:
    """A diff at level `full` of two components in three layers; 2.attn.q's change is of rank one."""

    def delta(layer: int, component: str) -> DeltaMetrics:
        flat = spectra.random_singular_values(64, 32, 0.1, 32)
        values = [10.0, *flat[1:]] if (layer, component) == (2, "attn.q") else list(flat)
        moved = [HeadMetrics(head=at, relative=0.01 * (at + layer), cosine=1.0, rms=0.1) for at in range(HEADS)]
        return DeltaMetrics(
            relative=0.1, cosine=0.9, rms=0.1, max_abs=0.5, changed=1.0, heads=moved, singular_values=values,
            stable_rank=3.0, energy={"8": 0.5}, base_overlap=0.2, base_overlap_null=0.1, intruder_share=0.6,
            intruder_share_null=0.7,
        )  # fmt: skip

    between = BetweenMetrics(
        cosine=-0.3, cosine_null=Null(mean=-0.1, low=-0.2, high=0.0), sign_conflict=0.5, subspace_left=0.4,
        subspace_right=0.3, subspace_null=Sides(left=0.1, right=0.2),
    )  # fmt: skip
    pairs = [
        Pair(
            tower="text", layer=layer, component=component, names={}, shape=[64, 32], block=f"{layer}.attn",
            dtype="F32",
            metrics=PairMetrics(vl=delta(layer, component), safety=delta(layer, component), between=between),
        )
        for layer in range(LAYERS)
        for component in ("attn.q", "attn.o")
    ]  # fmt: skip
    plain = make.diff()
    blocks = [
        summary.model_copy(update={"metrics": summary.metrics.model_copy(update={"between": between})})
        for summary in plain.blocks
    ]
    return plain.model_copy(update={"pairs": pairs, "blocks": blocks})


def shown(figure, kind: str):
    return [trace for trace in figure.data if trace.type == kind and trace.visible is not False]


def test_the_map_opens_the_block_with_the_largest_gain_and_a_menu_opens_others(probe: ProbeResult) -> None:
    info = safety_map.compute(probe)
    assert [each.block for each in info.inside][:2] == ["1.mlp", "1.attn"]
    figure = safety_map.draw(info)
    measures, blocks = figure.layout.updatemenus
    assert [button.label for button in measures.buttons] == ["by gain", "by share", "by cost"]
    assert [button.label for button in blocks.buttons][:2] == ["inside 1.mlp", "inside 1.attn"]
    sites = next(trace for trace in shown(figure, "bar") if "mlp.down" in (trace.x or ()))
    assert dict(zip(sites.x, sites.y, strict=True)) == {"norm.mlp": 0.1, "mlp.down": 0.2}
    visible, _, traces = blocks.buttons[1].args
    opened = [figure.data[at] for at, on in zip(traces, visible["visible"], strict=True) if on]
    assert list(opened[0].x) == ["attn.q", "attn.o"]
    assert list(opened[1].y) == pytest.approx([0.1 * head + 1 for head in range(HEADS)])
    assert set(traces).isdisjoint(measures.buttons[0].args[2])


def test_every_menu_names_every_trace_of_its_panels_once(probe: ProbeResult, diff: DiffResult) -> None:
    for figure in (safety_map.plot(probe, diff=diff), spectra.plot(diff), heads.plot(diff, probe), overlap.plot(diff)):
        told = [set(menu.buttons[0].args[2]) for menu in figure.layout.updatemenus]
        assert sum(len(traces) for traces in told) == len(set().union(*told))
        for menu in figure.layout.updatemenus:
            for button in menu.buttons:
                assert len(button.args[0]["visible"]) == len(button.args[2])
                assert any(on is True for on in button.args[0]["visible"])


def test_a_block_is_named_only_where_it_passes_the_null(probe: ProbeResult) -> None:
    assert [f.place.block for f in safety_map.compute(probe).clear] == ["1.mlp"]
    none = probe.attribution_null.model_copy(
        update={"blocks": [row.model_copy(update={"p": 0.2}) for row in probe.attribution_null.blocks]}
    )
    quiet = safety_map.compute(probe.model_copy(update={"attribution_null": none}))
    assert quiet.clear == ()
    assert safety_map.title(quiet) == "No block brings back lost refusals more than permuted prompts do"
    failed = AttributionNull(lost=9, controls=1, draws=0, threshold=None, blocks=[], reason="too few controls")
    untested = safety_map.compute(probe.model_copy(update={"attribution_null": failed}))
    assert "no block is named" in safety_map.title(untested)
    assert "too few controls" in safety_map.said(untested)


def test_the_null_is_drawn_where_a_blocks_t_would_reach_the_threshold(probe: ProbeResult) -> None:
    info = safety_map.compute(probe)
    (finding,) = (f for f in info.blocks if f.place.block == "1.mlp")
    assert finding.needed == pytest.approx(2.5 - 2.0 + 2.0 * 0.5)  # gain less difference, and t of 2 at a spread of .5
    (marks,) = (trace for trace in safety_map.draw(info).data if trace.name and trace.name.startswith("null"))
    assert len(marks.x) == len(info.blocks)


def test_words_say_how_blocks_work_together_and_where_the_map_is_contradicted(probe: ProbeResult) -> None:
    said = safety_map.said(safety_map.compute(probe))
    assert "1 of 9 blocks pass the null" in said
    assert "a difference of +2.00 [+1.00 to +3.00], so that they need one another" in said
    assert "listed" not in said
    assert "1.attn (−0.50)" in said
    assert "1.mlp (" not in said


def test_measures_of_diff_and_sorting_change_the_bars(probe: ProbeResult, diff: DiffResult) -> None:
    info = safety_map.compute(probe, by="weight change", top=3, sort="size", diff=diff)
    assert [f.place.block for f in info.blocks] == ["1.mlp", "1.attn", "2.attn"]
    bars = {x: y for trace in shown(safety_map.draw(info), "bar")[:2] for x, y in zip(trace.x, trace.y, strict=True)}
    assert bars == {0.0: pytest.approx(0.14), 1.0: pytest.approx(0.13), 2.0: pytest.approx(0.15)}
    with pytest.raises(SurgeryError, match="weight change"):
        safety_map.plot(probe, by="weight change")


def test_a_deep_model_is_a_map_of_layers_by_sites(make: SimpleNamespace) -> None:
    rows = [
        BlockGain(block=f"{n}.{kind}", gain=n / 10, share=None, cost=None, method="path")
        for n in range(80)
        for kind in ("attn", "mlp")
    ]
    rows += [part(f"{n}.{kind}", f"{kind}.x", None, n / 10) for n in range(80) for kind in ("attn", "mlp")]
    deep = make.probe().model_copy(update={"attribution": rows, "transplants": []})
    (cells,) = shown(safety_map.plot(deep), "heatmap")
    assert np.array(cells.z).shape == (2, 80)
    assert cells.z[0][79] == pytest.approx(7.9)
    assert cells.zmin == -cells.zmax


def test_rows_hold_blocks_sites_and_heads(probe: ProbeResult) -> None:
    told = safety_map.rows(safety_map.compute(probe))
    kinds = {(row["site"] is None, row["head"] is None) for row in told}
    assert kinds == {(True, True), (False, True), (False, False), (True, False)}
    heads_of_block = [
        row["gain"] for row in told if (row["block"], row["site"]) == ("0.attn", "attn.q") and row["head"] is not None
    ]
    assert sum(heads_of_block) == pytest.approx(1.4)


def test_heads_show_gains_first_and_changes_on_demand(probe: ProbeResult, diff: DiffResult) -> None:
    info = heads.compute(diff, probe)
    assert info.sheets[0].name == "gain: whole heads"
    assert heads.title(info) == "The lost refusal is spread over heads: none stands clear of the others"
    (cells,) = shown(heads.draw(heads.compute(diff, by="safety")), "heatmap")
    assert cells.z[HEADS - 1][2] == pytest.approx(0.01 * (HEADS - 1 + 2))
    moved = heads.compute(diff, sites=["attn.o"])
    assert heads.title(moved) == "Adaptation moved head 3 of layer 2 furthest in attn.o: by 5.0% of its norm"
    with pytest.raises(SurgeryError, match="attn\\.q, attn\\.o"):
        heads.compute(diff, sites=["attn.z"])


def test_random_changes_have_the_singular_values_of_random_matrices() -> None:
    generator = np.random.default_rng(0)
    for rows, columns in ((60, 200), (200, 200), (300, 100)):
        drawn = np.linalg.svd(generator.normal(size=(rows, columns)) * 0.3, compute_uv=False)[:40]
        assert spectra.random_singular_values(rows, columns, 0.3, 40) == pytest.approx(drawn, rel=0.06)


def test_a_change_of_rank_one_stands_out_from_a_random_one(diff: DiffResult) -> None:
    info = spectra.compute(diff)
    excess = {one.tensor: one.excess for one in info.spectra if one.delta == "vl"}
    assert excess.pop("2.attn.q") > 5
    assert set(excess.values()) == {1.0}
    assert info.picked[0] == "2.attn.q"
    assert "moved 1 of 6 matrices along few directions, most of all 2.attn.q" in spectra.title(info)
    nulls = [trace for trace in shown(spectra.draw(info), "scatter") if trace.line.dash == "dash"]
    assert len(nulls) == 2


def test_every_overlap_has_its_null_beside_it(diff: DiffResult) -> None:
    info = overlap.compute(diff)
    assert list(info.points) == list(overlap.MEASURES)
    assert "0.40 in the median, 0.10 by chance" in overlap.title(info)
    lines = shown(overlap.draw(info), "scatter")
    assert [set(trace.y) for trace in lines if trace.line.dash == "dash"] == [{0.1}, {0.1}]
    assert overlap.title(overlap.compute(diff, by="intruders, adaptation")).endswith(
        "0.60 in the median, 0.70 by chance"
    )


def test_the_null_of_every_cosine_is_drawn_by_block_and_by_tensor(diff: DiffResult) -> None:
    for level, count in (("block", 9), ("tensor", 6)):
        info = weight_change.compute(diff, level)
        (band,) = (trace for trace in weight_change.draw(info).data if trace.type == "bar")
        assert list(band.base) == [-0.2] * count
        assert list(band.y) == pytest.approx([0.2] * count)
    assert weight_change.said(info).startswith(
        "Of 6 tensors, the cosine of the two deltas lies above its null in 0 and below it in 6"
    )
