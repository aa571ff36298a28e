"""The frontier's figure: predicted and measured apart, models at the corners, and a title that claims no more than its
interval."""

from types import SimpleNamespace

import pytest

from vlsurgery.figures import frontier, theme
from vlsurgery.surgery.errors import SurgeryError


def test_points_curves_and_models_are_those_of_the_result(make: SimpleNamespace) -> None:
    info = frontier.compute(make.priced_tradeoff())
    assert [price for price, _ in info.measured] == [0.5, 2.0, 8.0]
    assert [name for name, _ in info.uniform] == [
        f"{base} toward base, {safety} toward safety"
        for base, safety in (("0.00", "0.00"), ("0.25", "0.00"), ("0.10", "0.30"), ("1.00", "0.00"), ("0.00", "1.00"))
    ]  # with the chosen one; the one that is behind is left out
    found = {each.name: each.rates.refusal.rate for each in info.references}
    assert found == {
        "adapted": 0.1,
        "graft (base's language model)": 0.9,
        "safety's language model": 1.0,
        "merged (linearised)": 0.85,
    }


def test_what_is_drawn_has_its_values_and_its_band(make: SimpleNamespace) -> None:
    figure = frontier.plot(make.priced_tradeoff())
    predicted, _ = (t for t in figure.data if t.name and "predicted" in t.name)
    assert list(predicted.x) == pytest.approx([0.21, 0.11, 0.03])
    assert list(predicted.y) == pytest.approx([0.88, 0.78, 0.58])
    band = next(t for t in figure.data if t.fill == "toself")
    assert list(band.y) == pytest.approx([0.92, 0.82, 0.62, 0.54, 0.74, 0.84])
    measured = next(t for t in figure.data if t.name == "block by block, measured")
    assert list(measured.error_y.array) == pytest.approx([0.04] * 3)
    sight = [t for t in figure.data if t.name == "block by block, measured"][1]
    assert list(sight.y) == [0.9] * 3


@pytest.mark.parametrize(
    ("gain", "title"),
    [
        ((0.1, 0.05, 0.15), "refuses more than uniform: +10.0 points"),
        ((-0.1, -0.15, -0.05), "refuses less than uniform: −10.0 points"),
        ((0.1, -0.01, 0.2), "no clear difference"),
        (None, "is predicted to buy"),
    ],
)
def test_the_title_claims_what_the_interval_carries(make: SimpleNamespace, gain: tuple | None, title: str) -> None:
    layout = frontier.plot(make.priced_tradeoff(gain)).layout
    assert title in layout.title.text
    told = layout.title.subtitle.text.replace("<br>", " ")
    assert ("none of its merges was measured" in told) == (gain is None)


def test_a_model_beyond_the_axis_is_told(make: SimpleNamespace) -> None:
    """Safety over-refuses at 80%, the graft at 30% with more refusal: safety is behind it, and beyond the axis."""
    tradeoff = make.priced_tradeoff()
    ahead = make.priced_tradeoff().points[3].rates
    stricter = ahead.model_copy(update={"refusal": make.rate(1.0)})
    points = [p.model_copy(update={"rates": stricter}) if p.rates == ahead else p for p in tradeoff.points]
    figure = frontier.plot(tradeoff.model_copy(update={"points": points}))
    assert figure.layout.xaxis.range[1] == pytest.approx(0.36)
    told = figure.layout.title.subtitle.text.replace("<br>", " ")
    assert "Further right: safety's language model (80%, refusal 100%)." in told
    assert "safety's language model" not in [trace.name for trace in figure.data]
    assert "Further right" not in frontier.plot(tradeoff).layout.title.subtitle.text


def test_names_of_sources_are_no_markup(make: SimpleNamespace) -> None:
    tradeoff = make.priced_tradeoff()
    hostile = tradeoff.points[0].model_copy(update={"parameters": {"safety:<b>": 1.0}})
    figure = frontier.plot(tradeoff.model_copy(update={"points": [*tradeoff.points, hostile]}))
    assert any(theme.safe("safety:<b>") in (trace.name or "") for trace in figure.data)
    assert not any("<b>'s" in (trace.name or "") for trace in figure.data)


def test_without_other_prices_there_is_nothing_to_draw(make: SimpleNamespace) -> None:
    assert not frontier.is_drawable(make.tradeoff())
    with pytest.raises(SurgeryError, match="No merges at other prices are known"):
        frontier.compute(make.tradeoff())
