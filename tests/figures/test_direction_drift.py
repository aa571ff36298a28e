"""Direction drift: one position, one reference, gaps where nothing was measured."""

from types import SimpleNamespace

import pytest

from vlsurgery.figures import direction_drift
from vlsurgery.figures.sections import drift_section
from vlsurgery.probes.results import (
    MEAN_DIFFERENCE,
    REFUSAL_DIRECTION,
    CandidateDirection,
    DirectionChoice,
    DirectionEffect,
    DirectionSelection,
    Estimate,
    Rate,
)


def test_only_the_selected_position_is_shown_and_all_of_it(make: SimpleNamespace) -> None:
    probe = make.probe()
    info = direction_drift.compute(probe)
    assert info.position == "instruction"
    shown = sum(len(series.auroc) for series in info.series)
    assert shown == sum(row.position == "instruction" for row in probe.records)
    cosines = [c for series in info.series for c in series.cosine]
    assert sorted(cosines) == sorted(row.cosine for row in probe.cosines if row.position == "instruction")


def test_the_reference_itself_is_not_drawn_as_a_finding(make: SimpleNamespace) -> None:
    figure = direction_drift.plot(make.probe())
    drawn = [(t.name, tuple(t.y)) for t in figure.data if t.yaxis == "y" and t.hoverinfo == "text"]
    assert {name for name, _ in drawn} == {"adapted, text only", "adapted, ordinary picture"}
    for _, values in drawn:
        assert values == pytest.approx((0.9, 0.7, 0.5))


def test_the_noise_band_spans_all_split_halves(make: SimpleNamespace) -> None:
    probe = make.probe()
    cosines = [row.model_copy(update={"split_half": 0.8 if row.role == "adapted" else 0.97}) for row in probe.cosines]
    info = direction_drift.compute(probe.model_copy(update={"cosines": cosines}))
    assert info.noise_band == dict.fromkeys(range(3), (0.8, 0.97))


def test_a_missing_value_leaves_a_gap(make: SimpleNamespace) -> None:
    probe = make.probe()
    none = Estimate(value=None, reason="one class only")
    rows = [row.model_copy(update={"auroc": none}) if row.layer == 1 else row for row in probe.records]
    figure = direction_drift.plot(probe.model_copy(update={"records": rows}))
    lines = [t for t in figure.data if t.yaxis == "y2" and t.hoverinfo == "text"]
    assert lines
    assert all(line.y[1] is None for line in lines)
    assert "one class only" in lines[0].hovertext[1]


def test_without_a_selected_layer_the_most_measured_position_is_shown(make: SimpleNamespace) -> None:
    probe = make.probe()
    rows = [row for row in probe.records if row.position == "-1" or row.layer == 0]
    info = direction_drift.compute(probe.model_copy(update={"selected": None, "records": rows}))
    assert info.position == "-1"
    direction_drift.draw(info)


def test_a_separation_below_its_null_is_no_finding(make: SimpleNamespace) -> None:
    probe = make.probe()
    weak = probe.selected.model_copy(update={"auroc": 0.55})
    figure = direction_drift.plot(probe.model_copy(update={"selected": weak}))
    assert "no layer separates better than chance" in figure.layout.xaxis2.title.text


def test_a_direction_is_called_what_was_shown_of_it(make: SimpleNamespace) -> None:
    """Without an effect, with one that fails, and with one that holds: in the title, the section and the mark."""
    probe = make.probe()
    failed, held = (
        probe.model_copy(update={"selection": selection(causal), "cosines": []}) for causal in (False, True)
    )
    for each, name, position in (
        (probe.model_copy(update={"cosines": []}), MEAN_DIFFERENCE, "instruction"),
        (failed, MEAN_DIFFERENCE, "instruction"),
        (held, REFUSAL_DIRECTION, "-1"),
    ):
        assert each.direction_name == name
        info = direction_drift.compute(each)
        assert info.position == position
        figure = direction_drift.draw(info)
        assert f"Drift of the {name}" in figure.layout.title.text
        section = drift_section(each)
        assert section.title == f"How the {name} drifted"
        assert (REFUSAL_DIRECTION in section.lead) == (name == REFUSAL_DIRECTION)
        assert ("carries refusals: ablating" in figure.layout.xaxis2.title.text) == (name == REFUSAL_DIRECTION)
    assert held.shown_at == ("-1", 2)
    assert "from 100% to 20% (n = 40; random directions to 90% to 100%)" in held.direction_words
    assert "was not measured" in probe.direction_words


def test_why_no_direction_was_chosen_is_said(make: SimpleNamespace) -> None:
    found = selection(False)
    late = found.candidates[0].model_copy(update={"reason": "in the last fifth of the layers", "refusal_score": None})
    nothing = DirectionChoice(chosen=None, ties=[], passed=0, discarded={"not a number": 1, "KL above 0.1": 1})
    none = found.model_copy(
        update={"choice": nothing, "shown": None, "effect": None, "candidates": [late, *found.candidates]}
    )
    probe = make.probe().model_copy(update={"selection": none})
    assert probe.direction_words == (
        "None of the base's 2 directions passes the published rules: 1 in the last fifth of the layers; 1 KL above 0.1."
        " It is called a harmful-harmless mean difference."
    )
    strongest = probe.model_copy(update={"selection": selection(True).model_copy(update={"choice": nothing})})
    assert strongest.direction_words.startswith(
        "None of the base's 1 directions passes the published rules: 1 KL above"
    )
    assert "after layer 2 at token -1 (KL 0.05 nats): ablated" in strongest.direction_words
    assert strongest.direction_name == REFUSAL_DIRECTION
    told = probe.model_copy(update={"selection": found.model_copy(update={"reason": "too few prompts"})})
    assert told.direction_words.startswith("No direction was ablated or added: too few prompts. It is called a harm")


def test_layers_that_separate_equally_well_are_named(make: SimpleNamespace) -> None:
    probe = make.probe()
    tied = probe.selected.model_copy(update={"ties": [0, 2]})
    figure = direction_drift.plot(probe.model_copy(update={"selected": tied}))
    assert "(equal: 0, 2)" in figure.layout.xaxis2.title.text


def selection(causal: bool) -> DirectionSelection:
    scores = {"refusal_score": -2.0, "steering_score": 1.0, "kl_div_score": 0.05}
    chosen = CandidateDirection(position="-1", layer=2, auroc=1.0, **scores)

    def share(value: float) -> Rate:
        return Rate(rate=value, low=0.0, high=1.0, n=40, requests=40)

    effect = DirectionEffect(
        refused=share(1.0),
        ablated=share(0.2 if causal else 0.8),
        ablated_random=[0.9, 1.0],
        accepted=share(0.0),
        added=share(0.9),
        added_random=[0.0, 0.1],
        log_odds={},
        causal=causal,
    )
    return DirectionSelection(
        candidates=[chosen],
        choice=DirectionChoice(chosen=chosen, ties=[], passed=1, discarded={}),
        shown=chosen,
        effect=effect,
        refusal_tokens=["I"],
        harmful=32,
        harmless=32,
        cost=0.2,
    )
