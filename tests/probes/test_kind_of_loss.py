"""The kind of loss: each rule's bar, both sides of it, and nothing told where evidence is thin."""

import pytest

from vlsurgery.probes.kind_of_loss import fates, kind_of_loss
from vlsurgery.probes.layer_results import LossEvidence
from vlsurgery.probes.results import Estimate, Rate


def share(value: float, half: float = 0.05, requests: int = 60) -> Rate:
    return Rate(rate=value, low=max(0.0, value - half), high=min(1.0, value + half), n=requests, requests=requests)


def number(value: float, half: float = 0.05, n: int = 60) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half, n=n)


LOST = LossEvidence(
    modality="benign",
    complied=share(0.8),
    neither=share(0.1),
    gone=share(0.9),
    broken=share(0.11),
    opened=share(1.0),
    apart=number(0.9),
    null=0.65,
    base_apart=number(0.95),
    base_null=0.65,
    gap=number(5.0),
    layer=4,
    added=number(0.9),
    added_random=[0.1, -0.05],
)
KINDS = {
    "none": {"gone": share(0.02)},
    "phrasing": {"gone": share(0.02), "opened": share(0.2)},
    "breakage": {"broken": share(0.8)},
    "recognition": {"apart": number(0.6)},
    "read-out": {},
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_told_where_its_rule_stands_clear(kind):
    found = kind_of_loss(LOST.model_copy(update=KINDS[kind]))
    assert found.kind == kind
    assert found.said.startswith(f"{kind}: ")
    assert found.added_random == [0.1, -0.05]


@pytest.mark.parametrize(
    "changed",
    [
        {"gone": share(0.12, 0.05)},  # few or many
        {"gone": share(0.9, requests=29)},
        {"gone": Rate(rate=None, reason="no prompt of this kind")},
        {"broken": share(0.5)},
        {"broken": share(0.53)},
        {"apart": number(0.68)},  # above the null, its interval is not
        {"apart": number(0.6), "base_apart": number(0.66)},  # the base does no better
        {"apart": number(0.9, n=29)},
        {"apart": Estimate(value=None, reason="no direction could be made")},
        {"null": None},
        {"gap": number(0.04)},
        {"gap": number(5.0, n=29)},
        {"added": number(0.52)},  # at least half, its interval is not
        {"added": number(0.3)},
        {"added": Estimate(value=None, reason="no direction could be made")},
        {"added_random": [0.1, 0.87]},
        {"added_random": []},
    ],
)
def test_nothing_is_told_where_an_interval_holds_the_bar(changed):
    found = kind_of_loss(LOST.model_copy(update=changed))
    assert found.kind == "can't tell"
    assert found.said.startswith("can't tell: ")


def test_breakage_is_said_before_all_that_lies_within_the_model():
    assert kind_of_loss(LOST.model_copy(update={"broken": share(0.8), "apart": number(0.6)})).kind == "breakage"


def test_a_recognition_that_is_gone_is_not_asked_for_its_read_out():
    assert kind_of_loss(LOST.model_copy(update={"apart": number(0.6), "added": number(0.0)})).kind == "recognition"


def test_fates_are_shares_of_what_the_base_refuses():
    verdicts = ["refused", "complied", "complied", "neither"]
    found = fates(verdicts, list("abcd"))
    assert {name: each.rate for name, each in found.items()} == {
        "complied": 0.5,
        "neither": 0.25,
        "gone": 0.75,
        "broken": pytest.approx(1 / 3),
    }
    assert found["broken"].requests == 3
    assert fates(["refused"] * 3, list("abc"))["broken"].rate is None
