"""Weight change: the diff's numbers, and the caveats that go with them."""

from types import SimpleNamespace

from vlsurgery.figures import weight_change


def test_every_block_once_with_its_numbers(make: SimpleNamespace) -> None:
    diff = make.diff()
    info = weight_change.compute(diff)
    assert {c.place.block: c.vl for c in info.blocks} == {s.key: s.metrics.vl.relative for s in diff.blocks}
    assert {c.place.block: c.cosine for c in info.blocks} == {s.key: s.metrics.between.cosine for s in diff.blocks}
    figure = weight_change.draw(info)
    drawn = sorted(y for t in figure.data if t.name.startswith("adaptation") for y in t.y)
    assert drawn == sorted(c.vl for c in info.blocks)
    cosines = sorted(y for t in figure.data if t.name.startswith("cosine") for y in t.y)
    assert cosines == sorted(c.cosine for c in info.blocks)


def test_without_a_safety_model_there_is_no_panel_of_cosines(make: SimpleNamespace) -> None:
    info = weight_change.compute(make.diff(safety=False))
    assert not info.has_between
    figure = weight_change.draw(info)
    assert not [t for t in figure.data if t.name.startswith(("cosine", "safety"))]


def test_the_caveats_are_on_the_figure(make: SimpleNamespace) -> None:
    figure = weight_change.plot(make.diff())
    assert "hardly says where safety went" in figure.layout.title.subtitle.text.replace("<br>", " ")
    notes = " ".join(note.text for note in figure.layout.annotations)
    assert "negative by construction" in notes
    assert "−0.5: three unrelated models" in notes
