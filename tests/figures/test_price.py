"""The price slider: a frame a price with its own numbers, and the command that writes it."""

from types import SimpleNamespace

import pytest

from vlsurgery.figures import price
from vlsurgery.probes.results import PredictedLimit


def test_every_frame_has_the_shares_and_coefficients_of_its_price(make: SimpleNamespace) -> None:
    tradeoff = make.priced_tradeoff()
    figure = price.plot(tradeoff)
    assert [frame.name for frame in figure.frames] == ["0.5", "2", "8"]
    for frame, point in zip(figure.frames, tradeoff.frontier.points, strict=True):
        shares, base, safety = frame.data
        assert list(shares.x) == [cell.share.rate for cell in point.cells]
        assert list(shares.error_x.array) == pytest.approx([c.share.high - c.share.rate for c in point.cells])
        assert (base.name, safety.name) == ("toward base", "toward safety")
        assert sorted(safety.y) == sorted(row["safety"] for row in point.coefficients.values())
        assert list(frame.traces) == [0, 1, 2]


def test_every_step_shows_its_frame_and_it_starts_at_the_usual_price(make: SimpleNamespace) -> None:
    (slider,) = price.plot(make.priced_tradeoff()).layout.sliders
    assert [step.args[0] for step in slider.steps] == [("0.5",), ("2",), ("8",)]
    assert slider.active == 1


def test_it_starts_at_the_price_that_was_merged(make: SimpleNamespace) -> None:
    tradeoff = make.priced_tradeoff()
    merged = tradeoff.points[-1].model_copy(update={"chosen": True})
    chosen = tradeoff.model_copy(update={"points": [*tradeoff.points[:-1], merged], "policy": "frontier"})
    assert price.compute(chosen).start == 2


def test_one_source_is_named_in_the_command(make: SimpleNamespace) -> None:
    tradeoff = make.priced_tradeoff()
    assert price.compute(tradeoff).commands[0] == "vlsurgery merge --auto --price 0.5"
    points = [
        point.model_copy(update={"coefficients": {block: {"base": 0.2} for block in point.coefficients}})
        for point in tradeoff.frontier.points
    ]
    alone = tradeoff.model_copy(update={"frontier": tradeoff.frontier.model_copy(update={"points": points})})
    assert price.compute(alone).commands[0] == "vlsurgery merge --auto --price 0.5 --toward base"


def test_safety_tuned_models_without_the_base_are_named_together(make: SimpleNamespace) -> None:
    tradeoff = make.priced_tradeoff()
    points = [
        point.model_copy(update={"coefficients": {b: {"safety": 0.1, "safety:dpo": 0.2} for b in point.coefficients}})
        for point in tradeoff.frontier.points
    ]
    tuned = tradeoff.model_copy(update={"frontier": tradeoff.frontier.model_copy(update={"points": points})})
    assert price.compute(tuned).commands[0] == "vlsurgery merge --auto --price 0.5 --toward safety"
    bars = [trace for trace in price.plot(tuned).data if trace.type == "bar"]
    assert [bar.name for bar in bars] == ["toward safety", "toward safety:dpo"]
    assert len({bar.marker.color for bar in bars}) == 2


def test_limits_stand_in_the_rows_of_their_cells_at_every_price(make: SimpleNamespace) -> None:
    tradeoff = make.priced_tradeoff()
    share = tradeoff.frontier.points[0].cells[0].share
    given = [("harmful", "benign", "complied_at_most", 0.05, 0.95), ("harmless", "text", "refused_at_most", 0.1, 0.1)]
    limits = [
        PredictedLimit(
            set=name, modality=modality, limit=limit, bound=bound, predicted=share, measured=share, share=asked,
            at_least=asked > 0.5,
        )
        for name, modality, limit, bound, asked in (*given, ("jailbroken", "own", "complied_at_most", 0.1, 0.9))
    ]  # fmt: skip
    figure = price.plot(tradeoff.model_copy(update={"limits": limits}))
    (drawn,) = (trace for trace in figure.data if trace.name == "your limits")
    assert list(drawn.x) == [0.95, 0.1]
    rows = list(figure.data[0].y)
    assert all(row in rows for row in drawn.y)
    assert drawn.y[0].startswith("harmful")
    assert "refused" in drawn.y[0]
    at = list(figure.data).index(drawn)
    assert all(at not in frame.traces for frame in figure.frames)
    assert "at least 95% here" in drawn.hovertext[0]
    assert "at most 10% here" in drawn.hovertext[1]
    kept = price.rows(price.compute(tradeoff.model_copy(update={"limits": limits})))
    assert [each["share"] for each in kept if each["price"] is None] == [0.95, 0.1]
    assert not [trace for trace in price.plot(tradeoff).data if trace.name == "your limits"]


def test_coefficients_that_might_exceed_1_are_asked_for_again(make: SimpleNamespace) -> None:
    """Without the option the price would be solved anew, to other coefficients than those shown."""
    tradeoff = make.priced_tradeoff()
    beyond = tradeoff.frontier.model_copy(update={"extrapolated": True})
    shown = price.compute(tradeoff.model_copy(update={"frontier": beyond}))
    assert shown.commands[0] == "vlsurgery merge --auto --price 0.5 --extrapolate"


def test_rows_stand_in_the_order_of_the_sets_and_the_title_has_both_ends(make: SimpleNamespace) -> None:
    layout = price.plot(make.priced_tradeoff()).layout
    assert [row.split(" ")[0] for row in layout.yaxis.categoryarray][::-1] == ["harmful", "harmless", "capability"]
    assert "over-refusal 21% to 3%, refusal 88% to 58%" in layout.title.text
