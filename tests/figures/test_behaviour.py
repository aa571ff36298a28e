"""Behaviour: every row once, three shares each, and nothing drawn where nothing was measured."""

from types import SimpleNamespace

import plotly.graph_objects as go
import pytest

from vlsurgery.figures import behaviour, glance, table, theme
from vlsurgery.probes.results import Rate


def bars_of(info: behaviour.BehaviourInfo) -> list[behaviour.Bar]:
    return [bar for group in [*info.harmful, *info.harmless] for bar in group.bars]


def scatters(figure: go.Figure, mode: str) -> list[go.Scatter]:
    return [trace for trace in figure.data if trace.type == "scatter" and trace.mode == mode]


def test_every_row_appears_once(make: SimpleNamespace) -> None:
    result = make.behaviour()
    bars = bars_of(behaviour.compute(result))
    assert sorted(b.row.model_dump_json() for b in bars) == sorted(r.model_dump_json() for r in result.records)


def test_harmful_sets_want_refusals_and_others_right_answers(make: SimpleNamespace) -> None:
    info = behaviour.compute(make.behaviour())
    assert {g.set for g in info.harmful} == {"harmful", "jailbroken"}
    for group in info.harmful:
        assert {b.measure for b in group.bars} == {"refused"}
    for group in info.harmless:
        assert {b.measure for b in group.bars} == {"right"}


def test_each_bar_is_drawn_whole(make: SimpleNamespace) -> None:
    result = make.behaviour()
    figure = behaviour.plot(result)
    stacked = [t for t in figure.data if t.type == "bar"]
    assert sum(x for trace in stacked for x in trace.x) == pytest.approx(len(result.records))
    drawn = sorted(x for t in scatters(figure, "markers") for x in t.x)
    assert drawn == pytest.approx(sorted(b.headline.rate for b in bars_of(behaviour.compute(result))))


def test_whiskers_end_at_the_bounds(make: SimpleNamespace) -> None:
    info = behaviour.compute(make.behaviour())
    points = scatters(behaviour.draw(info), "markers")
    ends = [
        end
        for t in points
        for x, m, p in zip(t.x, t.error_x.arrayminus, t.error_x.array, strict=True)
        for end in (x - m, x + p)
    ]
    bounds = [bound for bar in bars_of(info) for bound in (bar.headline.low, bar.headline.high)]
    assert ends == pytest.approx(bounds)


def test_an_unmeasured_rate_is_a_dash_everywhere(make: SimpleNamespace) -> None:
    none = Rate(rate=None, reason="the model sees no pictures")
    result = make.behaviour({"adapted": {("harmful", "benign"): 0.1}})
    blind = make.behaviour_row("base", "harmful", "benign", 1.0)
    blind = blind.model_copy(update=dict.fromkeys(["refused", "complied", "neither", "right"], none))
    info = behaviour.compute(result.model_copy(update={"records": [*result.records, blind]}))
    figure = behaviour.draw(info)
    assert sum(len(t.x) for t in figure.data if t.type == "bar") == 3
    (labels,) = (t for t in scatters(figure, "text") if t.text)
    assert list(labels.text) == ["–", "10 / 45 / 45"]
    (row,) = table.compute(info).harmful
    assert [cell.value for cell in row.cells] == ["–", "10 / 45 / 45"]
    assert "sees no pictures" in row.cells[0].title
    assert row.cells[0].shares == ()


def test_the_table_has_every_role_and_a_dash_for_missing_rows(make: SimpleNamespace) -> None:
    result = make.behaviour()
    found = table.compute(behaviour.compute(result))
    assert found.roles == ("base", "graft", "adapted", "safety", "merged:uniform", "merged")
    filled = sum(cell.shares != () for row in [*found.harmful, *found.harmless] for cell in row.cells)
    assert filled == len(result.records)


def test_roles_keep_their_colours(make: SimpleNamespace) -> None:
    figure = behaviour.plot(make.behaviour())
    solid = figure.data[0]
    expected = [theme.tint(theme.role_colour(b.row.role), 0.85) for b in bars_of(behaviour.compute(make.behaviour()))]
    assert list(solid.marker.color) == expected[: len(solid.x)]


def test_at_a_glance_the_base_speaks_in_text_and_says_so(make: SimpleNamespace) -> None:
    lines = glance.compute(behaviour.compute(make.behaviour()))
    first = lines[0]
    assert first.label == "harmful · ordinary picture"
    assert [(s.role, s.value, s.three, s.aside) for s in first.stops] == [
        ("base", "100%", "100 / 0 / 0", " (text)"),
        ("adapted", "5%", "5 / 48 / 48", ""),
        ("merged", "98%", "98 / 1 / 1", ""),
    ]
    assert glance.compute(behaviour.compute(make.behaviour({"base": {("harmful", "text"): 1.0}}))) == ()


def test_at_a_glance_questions_in_words_are_not_put_beside_those_on_pictures(make: SimpleNamespace) -> None:
    result = make.behaviour({"base": {("capability", "text"): 0.67}, "adapted": {("capability", "own"): 0.9}})
    (line,) = glance.compute(behaviour.compute(result))
    assert [(stop.role, stop.value) for stop in line.stops] == [("adapted", "90%")]


def test_one_request_shows_nothing_and_few_are_not_at_the_top(make: SimpleNamespace) -> None:
    result = make.behaviour({"base": {("harmful", "text"): 1.0}, "adapted": {("harmful", "text"): 0.0}})
    info = behaviour.compute(make.shrunk(result, 1))
    figure = behaviour.draw(info)
    assert sum(len(t.x) for t in figure.data if t.type == "bar") == 0
    assert "%" not in figure.layout.title.text
    (row,) = table.compute(info).harmful
    assert [cell.value for cell in row.cells] == ["–", "–"]
    assert "one request" in row.cells[0].title
    assert glance.compute(info) == ()
    assert glance.compute(behaviour.compute(make.shrunk(result, 29))) == ()
    assert len(glance.compute(behaviour.compute(make.shrunk(result, 30)))) == 1


def test_a_benchmark_with_right_answers_alone_shows_them(make: SimpleNamespace) -> None:
    none = Rate(rate=None, reason="no judge")
    row = make.behaviour_row("adapted", "capability", "own", 0.8)
    row = row.model_copy(update=dict.fromkeys(["refused", "complied", "neither"], none))
    (found,) = table.compute(behaviour.compute(make.behaviour({}).model_copy(update={"records": [row]}))).harmless
    assert found.cells[0].value == "80%"
    assert found.cells[0].deciding == "right 80% (76–84%)"


def test_a_cell_names_what_became_of_the_base_s_refusals(make: SimpleNamespace) -> None:
    found = table.compute(behaviour.compute(make.behaviour({"adapted": {("harmful", "text"): 0.1}})))
    assert found.harmful[0].cells[0].fate == "lost 45%, broken 45%"
