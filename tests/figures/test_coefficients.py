"""Coefficients and trade-off: the merged point's own numbers, and every point tried."""

from types import SimpleNamespace

from vlsurgery.figures import coefficients, theme


def test_the_merged_point_is_the_chosen_one_of_its_policy(make: SimpleNamespace) -> None:
    tradeoff = make.tradeoff()
    info = coefficients.compute(tradeoff)
    assert info.merged == tradeoff.points[-1]
    assert {b.place.block: b.values for b in info.blocks} == info.merged.coefficients


def test_bars_and_points_carry_the_infos_values(make: SimpleNamespace) -> None:
    info = coefficients.compute(make.tradeoff())
    figure = coefficients.draw(info)
    for target in ("base", "safety"):
        (bars,) = (t for t in figure.data if t.name == f"toward {target}")
        assert list(bars.y) == [b.values[target] for b in info.blocks]
        assert set(bars.marker.color) == {theme.role_colour(target)}
    drawn = sorted((x, y) for t in figure.data if t.type == "scatter" for x, y in zip(t.x, t.y, strict=True))
    assert drawn == sorted((p.capability, p.refusal) for p in info.points)


def test_chosen_points_are_ringed_and_drawn_last(make: SimpleNamespace) -> None:
    scatter = [t for t in coefficients.plot(make.tradeoff()).data if t.type == "scatter"]
    assert [t.name.endswith("chosen") for t in scatter] == [False, False, True, True]
    assert {t.name: t.marker.color for t in scatter[2:]} == {
        "uniform, chosen": theme.role_colour("merged:uniform"),
        "linearised, chosen": theme.role_colour("merged"),
    }


def test_what_may_be_0_is_pale_and_says_so(make: SimpleNamespace) -> None:
    tradeoff = make.tradeoff()
    point = tradeoff.points[-1]
    intervals = {block: {"base": (0.05, 0.2), "safety": (0.1, 0.3)} for block in point.coefficients}
    intervals["1.mlp"]["base"] = (0.0, 0.2)
    held = point.model_copy(update={"intervals": intervals})
    figure = coefficients.plot(tradeoff.model_copy(update={"points": [held]}))
    (bars,) = (t for t in figure.data if t.name == "toward base")
    pale = [text for text, colour in zip(bars.hovertext, bars.marker.color, strict=True) if colour.startswith("rgba")]
    assert len(pale) == 1
    assert "1.mlp" in pale[0]
    assert "0.00 to 0.20, may be 0" in pale[0]
    assert "Pale: may be 0" in figure.layout.title.subtitle.text
    assert "Pale" not in coefficients.plot(tradeoff).layout.title.subtitle.text


def test_merges_at_other_prices_are_left_to_the_frontier_but_for_a_chosen_one(make: SimpleNamespace) -> None:
    tradeoff = make.tradeoff()
    traced = [tradeoff.points[0].model_copy(update={"policy": "frontier", "chosen": c}) for c in (False, True)]
    info = coefficients.compute(tradeoff.model_copy(update={"points": [*tradeoff.points, *traced]}))
    assert info.points == (*tradeoff.points, traced[1])


def test_a_target_that_is_missing_is_not_drawn(make: SimpleNamespace) -> None:
    tradeoff = make.tradeoff()
    toward_base = tradeoff.points[-1].model_copy(update={"coefficients": {"0.attn": {"base": 0.3}}})
    figure = coefficients.plot(tradeoff.model_copy(update={"points": [toward_base]}))
    assert [t.name for t in figure.data if t.type == "bar"] == ["toward base"]


def test_without_a_chosen_point_the_points_are_still_shown(make: SimpleNamespace) -> None:
    tradeoff = make.tradeoff()
    info = coefficients.compute(tradeoff.model_copy(update={"points": tradeoff.points[:1]}))
    assert info.merged is None
    assert info.blocks == ()
    assert len([t for t in coefficients.draw(info).data if t.type == "scatter"]) == 1
