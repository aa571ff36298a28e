"""Patching: lines with their intervals, and a title only where they carry it."""

from types import SimpleNamespace

import pytest

from vlsurgery.figures import patching
from vlsurgery.figures.sections import patching_section
from vlsurgery.probes.results import Estimate, LossKind, Rate
from vlsurgery.surgery.errors import SurgeryError


def test_a_line_a_kind_of_token_with_its_interval(make: SimpleNamespace) -> None:
    figure = patching.plot(make.probe())
    lines = {trace.name: tuple(trace.y) for trace in figure.data if trace.hoverinfo == "text"}
    assert lines == {"image tokens": (0.0, 0.05, 0.0), "text tokens": (0.3, 0.6, 0.9)}
    bands = [trace for trace in figure.data if trace.fill == "toself"]
    assert [max(band.y) for band in bands] == pytest.approx([0.1, 0.95])
    assert all(trace.visible for trace in figure.data)
    assert not figure.layout.updatemenus


def test_the_title_names_the_first_layer_whose_interval_lies_above_half(make: SimpleNamespace) -> None:
    probe = make.probe()
    assert "text tokens bring most of the refusal back behind layer 1" in patching.plot(probe).layout.title.text
    few = [each.model_copy(update={"requests": 29}) for each in probe.patching]
    title = patching.plot(probe.model_copy(update={"patching": few})).layout.title.text
    assert "bring most" not in title


def test_no_gap_is_said_where_its_interval_holds_nothing(make: SimpleNamespace) -> None:
    probe = make.probe()
    none = Estimate(value=0.1, low=-0.2, high=0.4, n=40)
    found = [each.model_copy(update={"gap": none}) for each in probe.patching]
    figure = patching.plot(probe.model_copy(update={"patching": found}))
    assert "no clear gap" in figure.layout.title.subtitle.text.replace("<br>", " ")


def test_tokens_are_chosen_and_rows_hold_what_is_drawn(make: SimpleNamespace) -> None:
    info = patching.compute(make.probe(), tokens=["image"])
    assert [row["share of the gap"] for row in patching.rows(info)] == [0.0, 0.05, 0.0]
    with pytest.raises(SurgeryError, match="holds no 'all'"):
        patching.compute(make.probe(), tokens=["all"])


def test_the_page_says_which_kind_of_loss_it_is(make: SimpleNamespace) -> None:
    probe, unknown = make.probe(), Estimate(value=None, reason="-")
    loss = LossKind(
        modality="benign", kind="read-out", complied=Rate(rate=1.0), neither=Rate(rate=0.0), gone=Rate(rate=1.0),
        broken=Rate(rate=0.0), opened=Rate(rate=None), apart=unknown, null=None, base_apart=unknown, base_null=None,
        gap=unknown, layer=None, added=unknown, added_random=[], said="read-out: for a reason",
    )  # fmt: skip
    lead = patching_section(probe.model_copy(update={"loss": [loss]})).lead
    assert lead == "Kind of loss. With an ordinary picture, read-out: for a reason."
    assert "not measured" in patching_section(probe).lead
