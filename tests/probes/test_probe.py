"""The whole probe and evaluation on models that were never trained: nothing can be found, and everything must hold."""

from dataclasses import replace

import pytest
import torch

from vlsurgery.probes import targets as working_targets
from vlsurgery.probes.evaluation.evaluate import evaluate
from vlsurgery.probes.evaluation.generate import DEFAULT_TOKENS, complete
from vlsurgery.probes.evaluation.judges import STANDARD
from vlsurgery.probes.evaluation.judging import exchange
from vlsurgery.probes.evaluation.subjects import Subject, graft
from vlsurgery.probes.models import load
from vlsurgery.probes.probe import probe
from vlsurgery.probes.prompts import HARMFUL_SETS
from vlsurgery.surgery.alignment import align


@pytest.fixture(scope="module")
def prompts():
    from vlsurgery.probes.specimens.miniature import prompts

    every = prompts(0)
    cells: dict = {}
    for prompt in every:
        cells.setdefault((prompt.split, prompt.set, prompt.modality), []).append(prompt)
    return [prompt for members in cells.values() for prompt in members[:6]]


@pytest.fixture(scope="module")
def findings(trio, prompts):
    torch.manual_seed(0)
    return probe(align(trio.checkpoints), prompts)


def test_own_pictures_get_a_direction_and_are_told_apart(trio, prompts):
    """The prompts with an ordinary picture, as a user's with pictures of their own."""
    own = [replace(p, id=f"{p.id}/own", modality="own") for p in prompts if p.modality == "benign"]
    found = probe(align(trio.checkpoints), [*prompts, *own])
    seen = {row.role for row in found.result.records if row.modality == "own"}
    assert seen == {"adapted", "graft", "safety"}
    for role in seen:
        ours, theirs = (
            {
                name.partition("/")[2].partition("/")[2]: value
                for name, value in found.directions.items()
                if name.startswith(f"{role}/{modality}/")
            }
            for modality in ("own", "benign")
        )
        assert ours
        assert all(torch.equal(value, theirs[position]) for position, value in ours.items())


def test_every_role_is_looked_at_in_words_and_where_it_sees_with_a_picture(findings):
    seen = {(row.role, row.modality) for row in findings.result.records}
    pictured = {(role, "benign") for role in ("adapted", "graft", "safety")}
    assert seen == {(role, "text") for role in ("base", "adapted", "graft", "safety")} | pictured
    layers_and_positions = [(row.layer, row.position) for row in findings.result.records if row.role == "base"]
    assert len(layers_and_positions) == len(set(layers_and_positions)) == 9


def test_directions_are_saved_for_each_role_modality_and_position(findings):
    assert set(findings.directions) == {f"{row.role}/{row.modality}/{row.position}" for row in findings.result.records}
    for direction in findings.directions.values():
        assert direction.shape == (3, 32)
        assert direction.untyped_storage().nbytes() == direction.nbytes
    norms = {(row.role, row.modality, row.position, row.layer): row.norm for row in findings.result.records}
    for (role, modality, position, layer), norm in norms.items():
        direction = findings.directions[f"{role}/{modality}/{position}"][layer]
        assert norm == pytest.approx(float(direction.norm()), rel=1e-5)


def test_the_grafts_direction_in_words_is_the_bases_and_the_bases_is_its_own(findings):
    cosines = {(row.role, row.modality, row.position, row.layer): row.cosine for row in findings.result.cosines}
    for (role, modality, _, _), cosine in cosines.items():
        if modality == "text" and role in ("base", "graft"):
            assert cosine == pytest.approx(1, abs=1e-4)


def test_untrained_models_refuse_nothing_and_the_probe_says_so(findings):
    assert findings.result.attribution == []
    assert findings.result.completeness is None
    assert any(note.startswith("no attribution") for note in findings.result.notes)
    assert "The base refuses 0 of" in findings.result.verdict
    assert "nothing could be lost" in findings.result.verdict


def test_targets_are_asked_of_the_working_splits_alone(findings, prompts):
    asked = {prompt.id: prompt for prompt in prompts}
    assert {asked[row.prompt].split for row in findings.targets.records} == {"fit", "select"}
    base = [row for row in findings.targets.records if row.role == "base"]
    assert {asked[row.prompt].set for row in base} == set(HARMFUL_SETS)
    exchanges = [
        exchange(asked[row.prompt], row.text, cut=len(row.ids) == DEFAULT_TOKENS) for row in findings.targets.records
    ]
    assert [row.verdict for row in findings.targets.records] == [each.label for each in STANDARD.judge(exchanges)]
    assert {row.prompt for row in base} <= {row.prompt for row in findings.targets.records if row.role == "adapted"}
    assert all(working_targets.without_picture(asked[row.prompt]).image is None for row in base)


@pytest.fixture(scope="module")
def behaviour(trio, prompts):
    checkpoints = trio.checkpoints
    subjects = [
        Subject("base", checkpoints["base"]),
        graft(checkpoints["adapted"], checkpoints["base"]),
        Subject("adapted", checkpoints["adapted"]),
        Subject("merged", checkpoints["adapted"], {}, {"base": checkpoints["base"]}),
    ]
    return evaluate(subjects, prompts, looks=3)


def test_three_shares_sum_to_one_and_every_cell_of_report_is_there(behaviour, prompts):
    cells = {(prompt.set, prompt.modality) for prompt in prompts if prompt.split == "report"}
    for role in ("graft", "adapted", "merged"):
        assert {(row.set, row.modality) for row in behaviour.records if row.role == role} == cells
    assert {row.modality for row in behaviour.records if row.role == "base"} == {"text"}
    for row in behaviour.records:
        assert row.refused.rate + row.complied.rate + row.neither.rate == pytest.approx(1)
        assert row.refused.n == 6
    assert behaviour.looks == 3
    assert any("base does not see" in note for note in behaviour.notes)


def test_a_merge_of_nothing_behaves_as_the_adapted_model(behaviour):
    rows = {(row.role, row.set, row.modality): row for row in behaviour.records}
    for (role, set_, modality), row in rows.items():
        if role == "merged":
            twin = rows["adapted", set_, modality]
            assert (row.refused, row.complied, row.right) == (twin.refused, twin.complied, twin.right)
            assert row.kl is None or row.kl == pytest.approx(0, abs=1e-5)
    same = [item for item in behaviour.paired if (item.role, item.against) == ("merged", "adapted")]
    assert same
    assert all(item.difference == 0 and item.low <= 0 <= item.high for item in same)


def test_the_graft_writes_in_words_what_the_base_writes(trio, prompts):
    asked = [prompt for prompt in prompts if prompt.split == "report" and prompt.modality == "text"]
    base = complete(load(trio.checkpoints["base"]), asked, "asking", tokens=6)
    chat, state = graft(trio.checkpoints["adapted"], trio.checkpoints["base"]).open()
    with state:
        grafted = complete(chat, asked, "asking", tokens=6)
    adapted = complete(chat, asked, "asking", tokens=6)
    assert [each.text for each in grafted] == [each.text for each in base]
    assert [each.text for each in adapted] != [each.text for each in base]


def test_what_cannot_be_had_has_its_reason(behaviour):
    for row in behaviour.records:
        assert (row.kl is None) == (row.kl_reason is not None)
        assert (row.right.rate is None) == (row.right.reason is not None)
        if row.set in HARMFUL_SETS:
            assert row.right.rate is None
