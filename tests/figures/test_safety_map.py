"""The safety map draws every attributed block once, with the probe's own numbers."""

from types import SimpleNamespace

import plotly.graph_objects as go
import pytest
from hypothesis import given, strategies as st

from vlsurgery.figures import safety_map
from vlsurgery.probes.results import BlockGain, Completeness

GAIN = st.floats(-5, 5)


def shown_bars(figure: go.Figure) -> list[go.Bar]:
    """The bars that are seen before a menu is used."""
    return [trace for trace in figure.data if trace.type == "bar" and trace.visible is not False]


def test_the_path_map_is_conserved(make: SimpleNamespace) -> None:
    probe = make.probe()
    info = safety_map.compute(probe)
    path = {row.block: row.gain for row in probe.attribution if row.method == "path"}
    assert {f.place.block: f.path for f in info.blocks} == path
    assert sum(f.path for f in info.blocks) == pytest.approx(probe.completeness.total)
    assert {f.place.block: f.transplant for f in info.blocks} == {t.block: t.gain for t in probe.transplants}


def test_bars_and_diamonds_carry_the_infos_values(make: SimpleNamespace) -> None:
    info = safety_map.compute(make.probe())
    figure = safety_map.draw(info)
    bars = {x: y for trace in shown_bars(figure) for x, y in zip(trace.x, trace.y, strict=True)}
    assert bars == {f.place.x: f.path for f in info.blocks}
    (diamonds,) = (trace for trace in figure.data if trace.name == "single transplant")
    assert dict(zip(diamonds.x, diamonds.y, strict=True)) == {f.place.x: f.transplant for f in info.blocks}


def test_what_was_not_measured_is_absent_and_not_nought(make: SimpleNamespace) -> None:
    probe = make.probe()
    kept = [row for row in probe.attribution if not (row.block == "1.mlp" and row.method == "path")]
    info = safety_map.compute(probe.model_copy(update={"attribution": kept, "completeness": None}))
    (finding,) = (f for f in info.blocks if f.place.block == "1.mlp")
    assert finding.path is None
    bars = [x for trace in shown_bars(safety_map.draw(info)) for x in trace.x]
    assert finding.place.x not in bars
    assert "not checked" in safety_map.checks(None)


@given(st.dictionaries(st.sampled_from([f"{n}.{p}" for n in range(6) for p in ("attn", "mlp")]), GAIN, min_size=1))
def test_top_blocks_are_the_largest_gains(make: SimpleNamespace, gains: dict[str, float]) -> None:
    rows = [BlockGain(block=b, gain=g, share=None, cost=None, method="path") for b, g in gains.items()]
    info = safety_map.compute(make.probe().model_copy(update={"attribution": rows, "transplants": []}))
    top = [f.path for f in info.top]
    assert top == sorted((g for g in gains.values() if g > 0), reverse=True)[:3]
    if sum(gains.values()) <= 0:
        assert info.top_share is None
        assert "no refusal" in safety_map.title(info)


def gain(block: str, value: float, low: float | None, high: float | None) -> BlockGain:
    return BlockGain(block=block, gain=value, low=low, high=high, share=value / 4, cost=None, method="path")


def test_a_title_names_blocks_whose_intervals_stand_clear_of_the_rest(make: SimpleNamespace) -> None:
    def titled(*rows: BlockGain) -> str:
        return safety_map.title(
            safety_map.compute(make.probe().model_copy(update={"attribution": list(rows), "transplants": []}))
        )

    wide = titled(gain("0.mlp", 2.0, 0.5, 3.5), gain("1.mlp", 1.0, 0.2, 1.8), *_rest(0.6))
    assert "no block's gain stands clear" in wide
    one = titled(gain("0.mlp", 2.0, 1.2, 2.8), gain("1.mlp", 1.0, 0.2, 1.8), *_rest(0.6))
    assert "0.mlp" in one
    assert "1.mlp" not in one
    both = titled(gain("0.mlp", 2.0, 1.2, 2.8), gain("1.mlp", 1.0, 0.8, 1.2), *_rest(0.2))
    assert "0.mlp" in both
    assert "1.mlp" in both


def _rest(value: float) -> list[BlockGain]:
    return [gain(f"{layer}.attn", value, value - 0.1, value + 0.1) for layer in range(3)]


def test_bars_have_their_intervals(make: SimpleNamespace) -> None:
    rows = [gain("0.mlp", 2.0, 1.5, 3.0), gain("1.mlp", -1.0, -2.5, 0.5)]
    probe = make.probe().model_copy(update={"attribution": rows, "transplants": []})
    (bars,) = shown_bars(safety_map.draw(safety_map.compute(probe)))
    assert list(bars.error_y.array) == [1.0, 1.5]
    assert list(bars.error_y.arrayminus) == [0.5, 1.5]


def test_checks_give_both_figures() -> None:
    text = safety_map.checks(Completeness(total=9.0, measured=10.0, error=0.1, points=5, rank_correlation=0.85))
    for figure in ("9.00", "10.00", "10%", "0.85"):
        assert figure in text


def test_the_sites_of_a_block_stand_on_an_axis_of_names(make: SimpleNamespace) -> None:
    """plotly takes an axis for one of numbers where its first trace is empty, and draws no bar that has a name."""
    probe = make.probe()
    sites = [
        BlockGain(block="1.mlp", site=site, gain=gain, share=None, cost=None, method="path")
        for site, gain in (("mlp.gate", 1.0), ("mlp.down", 1.5))
    ]
    figure = safety_map.plot(probe.model_copy(update={"attribution": [*probe.attribution, *sites]}))
    (bars,) = (trace for trace in figure.data if trace.xaxis == "x2" and trace.type == "bar")
    assert dict(zip(bars.x, bars.y, strict=True)) == {"mlp.gate": 1.0, "mlp.down": 1.5}
    assert figure.layout.xaxis2.type == "category"
