"""Two directions side by side: cosines against a plain loop, the null against random directions, errors."""

import numpy as np
import pytest

from vlsurgery.figures import direction_pair, theme
from vlsurgery.probes.results import CosineRow, Estimate, ProbeResult, SeparationRow
from vlsurgery.surgery.errors import SurgeryError

LAYERS, WIDTH = 4, 64
FIRST, SECOND = ("base", "text"), ("adapted", "benign")


@pytest.fixture
def vectors() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(2)
    first = generator.standard_normal((LAYERS, WIDTH))
    return first, 3 * first + generator.standard_normal((LAYERS, WIDTH))


@pytest.fixture
def probed() -> ProbeResult:
    rows = [
        SeparationRow(role=role, modality=modality, position="-1", layer=layer, norm=1.0 + layer,
                      auroc=Estimate(value=0.9, low=0.8, high=0.95, n=60), dprime=Estimate(value=2.0, n=60))
        for role, modality in (FIRST, SECOND) for layer in range(LAYERS)
    ]  # fmt: skip
    cosines = [
        CosineRow(role="base", modality="text", reference="base/text", position="-1", layer=layer, cosine=1.0,
                  split_half=0.97)
        for layer in range(LAYERS)
    ]  # fmt: skip
    return ProbeResult(
        rows=rows, cosines=cosines, selected=None, attribution=[], transplants=[], completeness=None, ceiling=None,
        notes=[], verdict="",
    )  # fmt: skip


def compute(probed: ProbeResult, vectors: tuple[np.ndarray, np.ndarray], layer: int = 1):
    return direction_pair.compute(probed, FIRST, SECOND, vectors, "-1", layer)


def test_cosines_are_those_of_a_plain_loop(probed, vectors) -> None:
    found = compute(probed, vectors).cosines
    for i, a in enumerate(vectors[0]):
        for j, b in enumerate(vectors[1]):
            wanted = sum(x * y for x, y in zip(a, b, strict=True)) / (sum(a * a) * sum(b * b)) ** 0.5
            assert found[i][j] == pytest.approx(wanted)


def test_a_direction_is_like_itself_and_unlike_its_opposite(probed, vectors) -> None:
    same = compute(probed, (vectors[0], 7 * vectors[0])).cosines
    opposite = compute(probed, (vectors[0], -vectors[0])).cosines
    assert [same[at][at] for at in range(LAYERS)] == pytest.approx([1.0] * LAYERS)
    assert [opposite[at][at] for at in range(LAYERS)] == pytest.approx([-1.0] * LAYERS)
    assert compute(probed, (0 * vectors[0], vectors[1])).cosines == ((0.0,) * LAYERS,) * LAYERS


def test_one_in_twenty_random_pairs_exceeds_the_null(probed) -> None:
    generator = np.random.default_rng(5)
    null = compute(probed, (np.ones((LAYERS, WIDTH)), np.ones((LAYERS, WIDTH)))).null
    exceeding = 0
    for _ in range(2000):
        units = generator.standard_normal((2, LAYERS * LAYERS, WIDTH))
        units /= np.linalg.norm(units, axis=-1, keepdims=True)
        exceeding += np.abs((units[0] * units[1]).sum(-1)).max() > null
    assert 0.025 < exceeding / 2000 < 0.065


def test_the_finding_is_the_title_and_a_table_holds_what_is_drawn(probed, vectors) -> None:
    info = compute(probed, vectors, layer=2)
    assert info.title == f"After layer 2 the two directions have a cosine of {info.cosines[2][2]:.2f}"
    assert "0.97 and –" in info.subtitle
    rows = direction_pair.rows(info)
    assert [row["layer"] for row in rows] == list(range(LAYERS))
    assert rows[2]["cosine"] == info.cosines[2][2]
    assert rows[2]["base, text only: AUROC low"] == 0.8
    assert len({tuple(row) for row in rows}) == 1


def test_what_is_drawn_is_what_was_computed_on_both_papers(probed, vectors) -> None:
    info = compute(probed, vectors)
    for dark in (False, True):
        heat = direction_pair.plot(info, dark=dark)
        assert [list(row) for row in heat.data[0].z] == [list(row) for row in info.cosines]
        assert len(heat.layout.shapes) == 2  # the layer that is looked at, as a row and a column
        lines = direction_pair.plot_separation(info, dark=dark)
        assert list(lines.data[-1].y) == [info.cosines[at][at] for at in range(LAYERS)]
        paper = theme.DARK[theme.PAPER] if dark else theme.PAPER
        assert heat.layout.template.layout.paper_bgcolor == lines.layout.template.layout.paper_bgcolor == paper


def test_what_has_no_cosine_is_said(probed, vectors) -> None:
    with pytest.raises(SurgeryError, match=r"\[4, 64\] and \[3, 64\].*one shape"):
        compute(probed, (vectors[0], vectors[1][:3]))
    with pytest.raises(SurgeryError, match=r"layer: .*0, 1, 2, 3"):
        compute(probed, vectors, layer=4)


def test_names_from_a_case_are_no_markup(probed, vectors) -> None:
    info = direction_pair.compute(probed, ("<b>x</b>", "text"), SECOND, vectors, "-1", 0)
    for figure in (direction_pair.plot(info), direction_pair.plot_separation(info)):
        layout = figure.layout
        shown = [*(trace.name or "" for trace in figure.data), *(trace.hovertemplate or "" for trace in figure.data)]
        shown += [layout.title.subtitle.text, layout.xaxis.title.text or "", layout.yaxis.title.text or ""]
        assert not [text for text in shown if "<b>x" in text]
        assert any("&lt;b&gt;x" in text for text in shown)
