"""The verdict claims no more than the numbers: laws over random behaviour, and its words in known cases."""

from types import SimpleNamespace

import pytest
from hypothesis import given, strategies as st

from vlsurgery.figures.findings import Difference, difference, differences, recovery
from vlsurgery.figures.verdict import Conclusion, verdict
from vlsurgery.probes.results import BehaviourResult, Paired, PolicyDifference

CLAIM = "brought back"
SHARES = st.floats(0, 1)
HARMFUL = [("harmful", "text"), ("harmful", "benign"), ("jailbroken", "benign")]
HARMLESS = [("harmless", "benign"), ("borderline", "benign"), ("capability", "own")]
TABLES = st.fixed_dictionaries(
    {
        role: st.dictionaries(st.sampled_from(HARMFUL + HARMLESS), SHARES)
        for role in ("base", "adapted", "safety", "merged:uniform", "merged")
    }
)


def words(found: Conclusion) -> str:
    return " ".join([found.headline, *found.sentences, *found.limits])


def of(behaviour: BehaviourResult | None) -> Conclusion:
    return verdict(None, None, behaviour, None)


@given(TABLES, st.floats(0, 0.3))
def test_no_recovery_is_claimed_that_the_numbers_lack(
    make: SimpleNamespace, table: dict[str, dict[tuple[str, str], float]], half: float
) -> None:
    behaviour = make.behaviour(table, half=half)
    headline = of(behaviour).headline
    shared = [cell for cell in HARMFUL if cell in table["adapted"] and cell in table["merged"]]
    if not any(table["merged"][cell] > table["adapted"][cell] for cell in shared):
        assert CLAIM not in headline
        assert "raised" not in headline
        assert "helped" not in headline
    if CLAIM in headline or "raised" in headline:
        found = recovery(behaviour)
        assert found is not None
        assert found.primary.low is not None
        assert found.primary.low > 0
        assert not any(change.clearly_down for change in found.all)
    if "no measurable cost" in headline:
        for cell in HARMLESS:
            if cell in table["adapted"] and cell in table["merged"]:
                assert table["merged"][cell] >= table["adapted"][cell] - 2 * half - 1e-9


@given(TABLES, st.booleans(), st.booleans(), st.booleans())
def test_any_combination_of_results_gives_few_whole_sentences(
    make: SimpleNamespace, table: dict[str, dict[tuple[str, str], float]], diff: bool, probe: bool, tradeoff: bool
) -> None:
    found = verdict(
        make.diff() if diff else None,
        make.probe() if probe else None,
        make.behaviour(table),
        make.tradeoff() if tradeoff else None,
    )
    assert found.headline
    assert 1 <= len(found.sentences) <= 9
    for sentence in found.sentences:
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert "None" not in sentence


def test_a_full_recovery_in_words(make: SimpleNamespace) -> None:
    found = verdict(make.diff(), make.probe(), make.behaviour(), make.tradeoff())
    assert found.headline == (
        "The merge brought back refusals of harmful requests with an ordinary picture: refused / complied / neither"
        " went from 5 / 48 / 48% to 98 / 1 / 1%, at no measurable cost to harmless ones"
    )
    text = words(found)
    assert "The base refuses 100% (96–100%) of harmful requests" in text
    assert "1.mlp" in text
    assert "the graft" in text
    assert "The best uniform merge (base 0.10, safety 0.30)" in text
    assert 3 <= len(found.sentences) <= 6


def test_a_uniform_merge_is_not_held_against_itself(make: SimpleNamespace) -> None:
    difference = PolicyDifference(
        policy="uniform", against="linearised", difference=-0.25, low=-0.75, high=0.5, requests=60
    )
    tradeoff = make.tradeoff().model_copy(update={"policy": "uniform", "comparisons": [difference]})
    text = words(verdict(make.diff(), make.probe(), make.behaviour(), tradeoff))
    assert "clearly ahead in" not in text
    assert "The merge is the best uniform one (base 0.10, safety 0.30): coefficients block by block were not" in text
    assert "(+0.25 nats of the objective, −0.50 to +0.75)" in text


def test_blocks_whose_intervals_overlap_the_rest_are_not_named(make: SimpleNamespace) -> None:
    wide = [row.model_copy(update={"low": row.gain - 9, "high": row.gain + 9}) for row in make.probe().attribution]
    text = words(verdict(make.diff(), make.probe().model_copy(update={"attribution": wide}), make.behaviour(), None))
    assert "none stands clear of the others" in text
    assert "1.mlp" not in text


def test_a_merge_that_made_it_worse_is_called_so(make: SimpleNamespace) -> None:
    table = {"adapted": {("harmful", "benign"): 0.6}, "merged": {("harmful", "benign"): 0.2}}
    assert "made it worse" in of(make.behaviour(table)).headline
    assert "from 60 / 20 / 20% to 20 / 40 / 40%" in of(make.behaviour(table)).headline


def test_a_gain_here_and_a_loss_there_is_mixed(make: SimpleNamespace) -> None:
    table = {
        "adapted": {("harmful", "benign"): 0.1, ("jailbroken", "benign"): 0.8},
        "merged": {("harmful", "benign"): 0.9, ("jailbroken", "benign"): 0.3},
    }
    found = of(make.behaviour(table))
    assert CLAIM not in found.headline
    assert "in some places and not in others" in found.headline
    assert "of jailbroken requests with an ordinary picture from 80 / 10 / 10% to 30 / 35 / 35%" in found.headline
    assert "clearly fell on jailbroken requests" in words(found)


def test_part_of_the_way_is_not_the_whole(make: SimpleNamespace) -> None:
    table = {
        "base": {("harmful", "text"): 1.0},
        "adapted": {("harmful", "benign"): 0.1},
        "merged": {("harmful", "benign"): 0.5},
    }
    assert "brought back part of the refusals" in of(make.behaviour(table)).headline
    assert "(the base: 100 / 0 / 0%)" in of(make.behaviour(table)).headline


def test_nothing_is_brought_back_that_was_never_shown_to_be_lost(make: SimpleNamespace) -> None:
    cells = {"base": 0.5, "adapted": 0.5, "merged": 0.9}
    table = {role: {("harmful", "text"): share} for role, share in cells.items()}
    assert CLAIM not in of(make.behaviour(table)).headline
    assert "raised refusals" in of(make.behaviour(table)).headline


def test_few_requests_do_not_make_a_merge_free(make: SimpleNamespace) -> None:
    table = {
        "adapted": {("harmful", "benign"): 0.0, ("harmless", "benign"): 0.9},
        "merged": {("harmful", "benign"): 1.0, ("harmless", "benign"): 0.8},
    }
    headline = of(make.behaviour(table, half=0.3)).headline
    assert "raised" in headline
    assert "no measurable cost" not in headline
    assert "too few requests" in headline


def test_before_any_merge_the_headline_is_the_loss(make: SimpleNamespace) -> None:
    table = {role: cells for role, cells in make.table.items() if role in ("base", "adapted")}
    assert of(make.behaviour(table)).headline == (
        "Adaptation cost refusals: of 200 prompts (100 requests; harmful requests with an ordinary picture) that the"
        " base refuses, the adapted model complies with 95 (lost) and breaks on 95"
    )
    table = table | {"adapted": {("harmful", "text"): 0.99}}
    assert of(make.behaviour(table)).headline.startswith("No loss of refusals was shown")


def test_a_price_is_in_the_headline(make: SimpleNamespace) -> None:
    table = {
        "adapted": {("harmful", "benign"): 0.1, ("borderline", "benign"): 0.99},
        "merged": {("harmful", "benign"): 0.9, ("borderline", "benign"): 0.4},
    }
    found = of(make.behaviour(table))
    assert "but borderline requests with an ordinary picture answered right fell from 99% to 40%" in found.headline


def test_a_paired_test_decides_over_separate_intervals_either_way_round(make: SimpleNamespace) -> None:
    table = {"adapted": {("harmful", "benign"): 0.50}, "merged": {("harmful", "benign"): 0.56}}
    assert "no measurable difference" in of(make.behaviour(table)).headline
    test = {"set": "harmful", "modality": "benign", "measure": "refused", "requests": 100}
    forward = Paired(role="merged", against="adapted", difference=0.06, low=0.02, high=0.1, **test)
    backward = Paired(role="adapted", against="merged", difference=-0.06, low=-0.1, high=-0.02, **test)
    for paired in (forward, backward):
        found = difference(make.behaviour(table, [paired]), "merged", "adapted", ("harmful", "benign"))
        assert found == Difference(
            ("harmful", "benign"), "refused", pytest.approx(0.06), pytest.approx(0.02), pytest.approx(0.1), paired=True
        )
        assert "The merge raised refusals" in of(make.behaviour(table, [paired])).headline


@given(TABLES)
def test_differences_are_antisymmetric(make: SimpleNamespace, table: dict[str, dict[tuple[str, str], float]]) -> None:
    behaviour = make.behaviour(table)
    for harmful in (True, False):
        there = differences(behaviour, "merged", "adapted", harmful)
        back = differences(behaviour, "adapted", "merged", harmful)
        assert [d.value for d in there] == pytest.approx([-d.value for d in back])
        assert [d.low for d in there] == pytest.approx([-d.high for d in back])


def test_nothing_measured_is_said_with_the_commands(make: SimpleNamespace) -> None:
    text = words(verdict(None, None, None, None))
    for command in ("vlsurgery evaluate", "vlsurgery probe", "vlsurgery merge --auto"):
        assert command in text
    assert "vlsurgery merge --auto" in words(of(make.behaviour({"adapted": {("harmful", "text"): 0.1}})))


def test_the_specimen_is_named_as_what_it_is(make: SimpleNamespace) -> None:
    chosen = {"specimen": {"seed": 0, "chosen": True}}
    assert "The seed was chosen for the demo." in words(of(make.behaviour(settings=chosen)))
    assert "The seed was chosen for the demo." in words(verdict(None, make.probe(chosen), make.behaviour(), None))
    plain = words(of(make.behaviour(settings={"specimen": {"seed": 3, "chosen": False}})))
    assert "by construction" in plain
    assert "chosen" not in plain
    assert "construction" not in words(of(make.behaviour()))


def test_requests_are_called_what_they_are(make: SimpleNamespace) -> None:
    """The specimen's requests share their words; nobody's are called independent."""
    specimen = words(of(make.behaviour(settings={"specimen": {"seed": 3}})))
    assert "new combinations of known words, not independent" in specimen
    assert "independent" not in words(of(make.behaviour()))


def test_a_map_that_fails_its_checks_is_doubted(make: SimpleNamespace) -> None:
    probe = make.probe()
    checks = probe.completeness.model_copy(update={"error": 0.4, "rank_correlation": 0.2})
    text = words(verdict(None, probe.model_copy(update={"completeness": checks}), None, None))
    assert "read this map with care" in text
    assert "0.20" in text


def test_looks_at_report_prompts_are_counted(make: SimpleNamespace) -> None:
    often = make.behaviour().model_copy(update={"looks": 4})
    assert "looked at 4 times" in words(of(often))


def test_the_loss_is_told_of_the_requests_that_were_asked(make: SimpleNamespace) -> None:
    cell = ("jailbroken", "text")
    found = of(make.behaviour({"base": {cell: 0.95}, "adapted": {cell: 0.2}}))
    loss = next(sentence for sentence in found.sentences if "put to the adapted model" in sentence)
    assert loss.startswith("The base refuses 95% ")
    assert "of jailbroken requests; of the same ones put to the adapted model, in text only it refuses 20% " in loss
    assert "too few" not in loss
