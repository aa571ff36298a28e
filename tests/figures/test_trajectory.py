"""The figure of a training run: what it gathers, what its title claims, and the page that holds it."""

import re

import pytest

from vlsurgery.figures import trajectory
from vlsurgery.probes.results import Estimate, Rate
from vlsurgery.probes.trajectory_results import BlockPoint, Departure, RefusalPoint, RunPoint, TrajectoryResult

STEPS = (None, 0, 10, 20)
ODDS = {"harmful": (6.0, 6.0, 2.0, -6.0), "harmless": (-8.0, -8.0, -8.0, -9.0)}


def share(value: float) -> Rate:
    return Rate(rate=value, low=max(0.0, value - 0.1), high=min(1.0, value + 0.1), n=40, requests=40)


def point(at: int, set_: str, rates: bool) -> RefusalPoint:
    odds = ODDS[set_][at]
    drop = ODDS[set_][0] - odds
    return RefusalPoint(
        at=at, step=STEPS[at], name=f"step-{STEPS[at]}", set=set_, modality="text",
        log_odds=Estimate(value=odds, low=odds - 1, high=odds + 1, n=40),
        drop=Estimate(value=drop, low=drop - 0.5, high=drop + 0.5, n=40) if at else Estimate(value=None, reason="base"),
        opens_refusing=share(float(odds > 0)), **({"refused": share(0.5), "complied": share(0.4)} if rates else {}),
    )  # fmt: skip


def departure(**changed: object) -> Departure:
    known = {"fell": 10, "fell_at": 2, "half": 20, "half_after": 10, "half_at": 3, "lasting": True, "requests": 40}
    return Departure(set="harmful", modality="text", **{**known, **changed})


def run(*departures: Departure, rates: bool = False) -> TrajectoryResult:
    moved = {"1.mlp": (0.0, 0.02, 0.04), "0.attn": (0.0, 0.03, 0.03), "embed": (0.0, 0.0, 0.0)}
    return TrajectoryResult(
        points=[RunPoint(at=at, step=step, name="", reads_pictures=False) for at, step in enumerate(STEPS)],
        records=[point(at, set_, rates) for at in range(4) for set_ in ODDS],
        blocks=[
            BlockPoint(
                at=at, step=STEPS[at], block=block, relative=values[at - 1],
                share=values[at - 1] / values[2] if values[2] else None,
            )
            for block, values in moved.items()
            for at in (1, 2, 3)
        ],
        departures=list(departures),
        openings=["i can't", "<b>sorry</b>"],
        verdict="Refusals <i>left</i>.",
        warnings=["steps do not rise"],
    )  # fmt: skip


def test_it_gathers_sets_in_order_and_blocks_from_the_bottom_up() -> None:
    info = trajectory.compute(run(departure()))
    assert info.ticks == ("base", "0", "10", "20")
    assert [each.set for each in info.series] == ["harmful", "harmless"]
    assert [[each.log_odds.value for each in series.points] for series in info.series] == [[*ODDS[s]] for s in ODDS]
    assert info.blocks == ("embed", "0.attn", "1.mlp")


@pytest.mark.parametrize(
    ("found", "title"),
    [
        (departure(), "Refusals of harmful requests in text only were half gone between steps 10 and 20"),
        (departure(half=0, half_after=None), "Refusals of harmful requests in text only were half gone at the first"),
        (departure(fell=None, fell_at=None, half=None, half_at=None), "did not leave"),
        (departure(half=None, half_at=None, lasting=False), "fell by step 10 and came back"),
        (departure(requests=12), "too few requests for a claim"),
    ],
)
def test_the_title_is_the_finding(found: Departure, title: str) -> None:
    assert title in trajectory.plot(run(found)).layout.title.text


def test_lines_bands_and_the_heat_map_hold_the_numbers() -> None:
    figure = trajectory.plot(run(departure()))
    lines = {trace.name: trace for trace in figure.data if trace.type == "scatter" and trace.name}
    assert list(lines["harmful · text only"].y) == [*ODDS["harmful"]]
    band = next(trace for trace in figure.data if trace.fill == "toself")
    assert list(band.y) == [*(each + 1 for each in ODDS["harmful"]), *(each - 1 for each in ODDS["harmful"][::-1])]
    (heat,) = [trace for trace in figure.data if trace.type == "heatmap"]
    assert [list(row) for row in heat.z] == [[0.0, 0.0, 0.0], [0.0, 0.03, 0.03], [0.0, 0.02, 0.04]]
    assert list(heat.x) == [1, 2, 3]
    (shares,) = [trace for trace in trajectory.plot(run(departure()), "share").data if trace.type == "heatmap"]
    assert list(shares.z[2]) == [0.0, 0.5, 1.0]
    marked = {note.text for note in figure.layout.annotations}
    assert {"first fall", "half gone"} <= marked


def test_rates_have_a_panel_of_their_own_where_they_were_counted() -> None:
    assert "yaxis3" not in trajectory.plot(run(departure())).layout
    figure = trajectory.plot(run(departure(), rates=True))
    assert figure.layout.yaxis3.domain is not None
    assert [trace.y for trace in figure.data if trace.yaxis == "y2" and trace.mode == "lines+markers"] == [
        (0.5,) * 4
    ] * 2


def test_the_page_stands_alone_and_escapes_what_models_said() -> None:
    page = trajectory.page(run(departure()))
    assert page.startswith("<!DOCTYPE html>")
    assert "<title>vlsurgery trajectory</title>" in page
    assert "Refusals &lt;i&gt;left&lt;/i&gt;." in page
    assert "&lt;b&gt;sorry&lt;/b&gt;" in page
    assert "Warning: steps do not rise" in page
    # A tag's: scripts within the page hold addresses of maps, in some versions of Plotly.
    assert not re.search(r"<[a-z]+ [^<>]*\bsrc=\"http", page)
