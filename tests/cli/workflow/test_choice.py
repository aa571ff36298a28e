"""What becomes of a choice that keeps no limit, and which earlier choice a price may be taken from."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from vlsurgery.cli.options import Running
from vlsurgery.cli.workflow import choice
from vlsurgery.cli.workflow.choice import choice_settings, chosen_coefficients, measured_beside, options_of
from vlsurgery.cli.workflow.engine import StepOptions
from vlsurgery.probes import known_price, selection
from vlsurgery.probes.evaluation.limits import Limits
from vlsurgery.probes.results import Estimate, Frontier, MergeRates, PricedMerge, Rate, TradeoffResult
from vlsurgery.surgery.errors import LimitNotMet

LIMITS = Limits.model_validate({"sets": {"harmful": {"refused_at_least": 0.9}}})
NONE = Rate(rate=None)
RATES = MergeRates(refusal=NONE, over_refusal=NONE, sight=NONE)


def tradeoff(**fields: object) -> TradeoffResult:
    point = PricedMerge(price=2.5, coefficients={"0.mlp": {"base": 0.1}}, rates=RATES, cells=[])
    curve = Frontier(points=[point], gain=Estimate(value=None))
    return TradeoffResult(points=[], policy="limits", frontier=curve, verdict="", **fields)


class Job:
    """A job whose case was left by a choice under `recorded` settings."""

    def __init__(self, options: StepOptions, recorded: dict | None = None, is_current: bool = True) -> None:
        self.options, self.sources, self.said = options, ("base",), []
        self.alignment = self.prompts = self.progress = None
        self.checkpoints = {"adapted": None}
        kept = {TradeoffResult: tradeoff()}
        self.case = SimpleNamespace(
            settings_of=lambda step: recorded,  # noqa: ARG005
            is_current=lambda *_: is_current,
            result=kept.get,
            path=lambda name: name,
        )

    def loader(self, step: str) -> None: ...

    def result(self, kind: type) -> object:  # noqa: ARG002
        return SimpleNamespace(attribution=[], blocks=[])

    def say(self, line: str) -> None:
        self.said.append(line)


@pytest.fixture
def choices(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What a choice gives, and what was asked for."""
    seen: dict[str, object] = {"gives": tradeoff()}

    def choose(*arguments: object) -> object:
        seen["how"] = arguments[3]
        return seen["gives"]

    def at_known_price(*arguments: object) -> str:
        seen["price"] = arguments[4]
        return "known"

    monkeypatch.setattr(selection, "choose", choose)
    monkeypatch.setattr(known_price, "at_known_price", at_known_price)
    return seen


def test_limits_that_no_merge_keeps_end_with_their_reason_and_exit_code_3(choices):
    choices["gives"] = tradeoff(missed="harmful.text refused_at_least 0.9 binds: it is missed by 4.0 points")
    job = Job(StepOptions(limits=LIMITS))
    with pytest.raises(LimitNotMet, match=r"binds: it is missed by 4\.0 points.*--write-anyway") as raised:
        chosen_coefficients(job, choice_settings(job))
    assert raised.value.exit_code == 3
    assert "\n" not in str(raised.value)
    anyway = Job(StepOptions(limits=LIMITS, write_anyway=True))
    assert chosen_coefficients(anyway, choice_settings(anyway)) is choices["gives"]
    assert "the nearest one is written" in anyway.said[-1]
    assert choices["how"].limits == LIMITS


def test_limits_that_only_whole_answers_show_are_told_of(choices):
    job = Job(StepOptions(limits=LIMITS))
    assert chosen_coefficients(job, choice_settings(job)) is choices["gives"]
    assert "none of the limits can be predicted" in job.said[-1]


def test_the_workers_that_were_named_measure_merges(choices, monkeypatch):
    told = []

    @contextmanager
    def engine(address, checkpoints, device):
        told.append((address, checkpoints, device))
        yield "workers"
        told.append("ended")

    monkeypatch.setattr(choice, "engine_for_models", engine)
    job = Job(StepOptions(ray="local:2", running=Running(device="cpu")))
    chosen_coefficients(job, choice_settings(job))
    assert told == [("local:2", [None], "cpu"), "ended"]
    assert choices["how"].engine == "workers"
    known = Job(StepOptions(ray="local:2", price=2.5), settings())
    assert chosen_coefficients(known, settings(price=2.5)) == "known"
    assert len(told) == 2


def settings(**options: object) -> dict:
    job = Job(StepOptions(**options))
    return {"prompts": {"digest": "d"}, **choice_settings(job)}


def test_settings_hold_only_what_was_asked_for():
    assert settings() == {"prompts": {"digest": "d"}, "policy": "best", "sources": ["base"]}
    assert settings(price=2.5)["price"] == 2.5
    assert settings(limits=LIMITS, write_anyway=True)["write_anyway"] is True


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"policy": "linearised", "toward": "base", "sparse": True},
        {"price": 2.5, "frontier": 7, "toward": "base"},
        {"limits": LIMITS, "write_anyway": True, "toward": "base"},
    ],
)
def test_a_choice_can_be_made_again_as_its_settings_have_it(asked):
    options = StepOptions(**{"toward": "base", **asked})
    assert options_of(choice_settings(Job(options))) == options


def test_the_merges_that_are_measured_beside_are_counted():
    counts = ({}, {"frontier": 7}, {"frontier": 7, "price": 2.0}, {"limits": LIMITS})
    assert [measured_beside(StepOptions(**asked)) for asked in counts] == [0, 7, 8, 2]


@pytest.mark.parametrize(
    ("recorded", "asked", "is_current", "known"),
    [
        (settings(), settings(price=2.5), True, True),
        (settings(frontier=20) | {"uses": []}, settings(price=2.5), True, True),
        (settings(price=7.0), settings(price=2.5), True, True),
        (settings(), settings(price=2.4), True, False),
        (settings(), settings(price=2.5), False, False),
        (settings(policy="linearised"), settings(price=2.5), True, False),
        (settings(limits=LIMITS), settings(price=2.5), True, False),
        (settings() | {"prompts": {"digest": "other"}}, settings(price=2.5), True, False),
        (settings(), settings(price=2.5, frontier=20), True, False),
        (None, settings(price=2.5), True, False),
    ],
)
def test_a_price_is_taken_from_an_earlier_choice_of_the_same_settings_alone(
    choices, recorded, asked, is_current, known
):
    job = Job(StepOptions(price=asked["price"]), recorded, is_current)
    found = chosen_coefficients(job, asked)
    assert (found == "known") == known
    assert ("price" in choices) == known
