"""What may be chosen: figures of what was asked for, and one line that names what there is where there is none."""

from types import SimpleNamespace

import pytest

from vlsurgery.figures import behaviour, coefficients, direction_drift, frontier, outcomes, price
from vlsurgery.figures.choice import chosen, leading, one_of
from vlsurgery.surgery.errors import SurgeryError


def test_chosen_keeps_the_order_of_what_is_there() -> None:
    assert chosen("roles", None, ["b", "a", "b"]) == ("b", "a")
    assert chosen("roles", ["a", "b", "a"], ["b", "c", "a"]) == ("b", "a")
    assert chosen("layers", [2], range(3)) == (2,)
    assert one_of("position", "-1", ["instruction", "-1"]) == "-1"


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (["x"], "roles: this result holds no 'x'. Choose from: base, adapted."),
        ([], "roles: the list is empty, so that nothing would be drawn. Choose from: base, adapted."),
        ("base", "roles: expected a list, found the text 'base'. Write roles=['base']."),
    ],
)
def test_what_is_not_there_is_one_line_that_names_what_is(wanted: list[str], said: str) -> None:
    with pytest.raises(SurgeryError) as error:
        chosen("roles", wanted, ["base", "adapted"])
    assert str(error.value) == said


def test_a_count_is_at_least_one() -> None:
    assert (leading("top", 3), leading("top", None)) == (3, None)
    with pytest.raises(SurgeryError, match=r"top: expected a whole number from 1 on, found 0"):
        leading("top", 0)


def test_behaviour_and_fates_are_of_what_was_asked(make: SimpleNamespace) -> None:
    result = make.behaviour()
    info = behaviour.compute(result, roles=["merged", "adapted"], sets=["harmful", "capability"], modalities=["benign"])
    assert [g.set for g in info.harmful] == ["harmful"]
    assert [bar.row.role for bar in info.harmful[0].bars] == ["adapted", "merged"]
    assert info.harmless == ()
    assert {row["role"] for row in behaviour.rows(info)} == {"adapted", "merged"}
    fates = outcomes.compute(result, roles=["graft"])
    assert {one.role for group in fates.groups for one in group.fates} == {"graft"}
    with pytest.raises(SurgeryError, match="no row has all of them"):
        behaviour.compute(result, roles=["base"], modalities=["own"])
    with pytest.raises(SurgeryError, match=r"sets: this result holds no 'harmles'\. Choose from: harmful, jailbroken"):
        behaviour.plot(result, sets=["harmles"])


def test_drift_is_of_the_roles_kinds_position_and_layers_that_were_asked(make: SimpleNamespace) -> None:
    info = direction_drift.compute(
        make.probe(), roles=["adapted"], modalities=["benign"], position="instruction", layers=[0, 2]
    )
    assert [(s.role, s.modality, s.cosine_layers, s.auroc_layers) for s in info.series] == [
        ("adapted", "benign", (0, 2), (0, 2))
    ]
    assert info.position == "instruction"
    assert [row["layer"] for row in direction_drift.rows(info)] == [0, 2]
    with pytest.raises(SurgeryError, match=r"position: this result holds no '-2'\. Choose from: instruction, -1"):
        direction_drift.plot(make.probe(), position="-2")


def test_coefficients_are_of_the_layers_policies_and_largest_that_were_asked(make: SimpleNamespace) -> None:
    info = coefficients.compute(make.tradeoff(), layers=[1], policies=["uniform"])
    assert [block.place.block for block in info.blocks] == ["1.attn", "1.mlp"]
    assert {point.policy for point in info.points} == {"uniform"}
    tradeoff = make.tradeoff()
    merged = tradeoff.points[-1]
    uneven = {block: {"base": 0.1 * at, "safety": 0.0} for at, block in enumerate(merged.coefficients)}
    points = [*tradeoff.points[:-1], merged.model_copy(update={"coefficients": uneven})]
    most = coefficients.compute(tradeoff.model_copy(update={"points": points}), top=2)
    assert [block.place.block for block in most.blocks] == list(uneven)[-2:]
    with pytest.raises(SurgeryError, match=r"layers: this result holds no 9\. Choose from: 0, 1, 2"):
        coefficients.plot(make.tradeoff(), layers=[9])


def test_the_frontier_has_a_panel_a_measure_and_the_models_that_were_asked(make: SimpleNamespace) -> None:
    info = frontier.compute(make.priced_tradeoff(), measures=["sight"], references=["adapted"])
    assert [each.role for each in info.references] == ["adapted"]
    figure = frontier.draw(info)
    assert figure.layout.yaxis.title.text == frontier.MEASURES["sight"]
    assert "yaxis2" not in figure.layout
    with pytest.raises(SurgeryError, match="measures: this result holds no 'loss'"):
        frontier.plot(make.priced_tradeoff(), measures=["loss"])


def test_the_slider_starts_at_the_price_that_was_asked(make: SimpleNamespace) -> None:
    info = price.compute(make.priced_tradeoff(), price=8, layers=[0])
    assert (info.start, list(info.axis.places)) == (2, ["0.attn", "0.mlp"])
    with pytest.raises(SurgeryError, match=r"price: this result holds no '3'\. Choose from: 0.5, 2, 8"):
        price.compute(make.priced_tradeoff(), price=3)


def test_points_at_one_place_are_counted(make: SimpleNamespace) -> None:
    """Nine tied points under one marker, of two policies, and one elsewhere."""
    tradeoff = make.tradeoff()
    same = [tradeoff.points[0].model_copy(update={"parameters": {"base": at / 10}}) for at in range(8)]
    other = tradeoff.points[2].model_copy(update={"refusal": same[0].refusal, "capability": same[0].capability})
    result = tradeoff.model_copy(update={"points": [*same, other, tradeoff.points[3]]})
    (group,) = coefficients.tied(coefficients.compute(result).points)
    assert len(group) == 9
    (counts,) = (t for t in coefficients.plot(result).data if t.name == "how many stand at one place")
    assert (counts.text[0].strip(), counts.x[0], counts.y[0]) == ("9×", same[0].capability, same[0].refusal)
    assert "9 merges stand here" in counts.hovertext[0]
    assert "and 1 more" in counts.hovertext[0]


@pytest.mark.parametrize("module", [behaviour, outcomes])
def test_every_figure_can_be_dark(make: SimpleNamespace, module: object) -> None:
    assert module.plot(make.behaviour(), dark=True).layout.template.layout.paper_bgcolor != "#ffffff"
