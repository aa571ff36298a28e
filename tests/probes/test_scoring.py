import math

import pytest
import torch

from vlsurgery.probes.evaluation.generate import complete
from vlsurgery.probes.models import load
from vlsurgery.probes.scoring import (
    OpeningOdds,
    greedy_matches,
    log_probabilities,
    refusal_choices,
    refusal_log_odds,
    scored_answers,
)
from vlsurgery.probes.targets import evenly_spaced, token_ids


@pytest.fixture(scope="module")
def adapted(trio):
    return load(trio.checkpoints["adapted"])


def test_log_odds_are_those_of_transformers_probabilities_of_refusing_in_any_words(adapted, asked):
    refusals = [torch.tensor([11, 5 + at % 3, 8]) for at in range(len(asked))]
    answers = [torch.tensor([11, 20, 9, 4]) for _ in asked]
    found = refusal_log_odds(adapted, refusal_choices(adapted, asked, refusals, answers, size=7))
    for at in (0, 8, 29):
        (batch,) = adapted.batches(adapted.encode([asked[at]]), [torch.tensor([11])])
        with torch.no_grad():
            p = float(torch.softmax(adapted.model(**batch.inputs).logits[0, -1].double(), -1)[[5, 6, 7]].sum())
        assert float(found[at]) == pytest.approx(math.log(p) - math.log1p(-p), abs=1e-4)


def test_a_token_that_answers_begin_with_does_not_refuse_unless_it_is_the_prompts_own(adapted, asked):
    refusals = [torch.tensor([5, 1]), torch.tensor([6, 1]), torch.tensor([6, 2, 7])]
    answers = [torch.tensor([9]), torch.tensor([9]), torch.tensor([6, 2, 8])]
    tokens = {}
    for batch in refusal_choices(adapted, asked[:3], refusals, answers):
        tokens.update(zip(batch.owner.tolist(), batch.refuse, strict=True))
    assert [tokens[at].tolist() for at in range(3)] == [[5], [5, 6], [7]]


def test_completions_that_never_part_are_refused(adapted, asked):
    with pytest.raises(ValueError, match="no token where they part"):
        refusal_choices(adapted, asked[:1], [torch.tensor([1, 2])], [torch.tensor([1, 2, 3])])


def test_a_models_own_greedy_tokens_match_and_others_do_not(adapted, asked):
    own = []
    for prompt in asked:
        ids = adapted.encode([prompt])[0]
        (batch,) = adapted.batches([ids])
        out = adapted.model.generate(**batch.inputs, do_sample=False, max_new_tokens=5)
        own.append(out[0, len(ids.ids) :])
    changed = [torch.cat([ids[:-1], (ids[-1:] + 1) % 40]) for ids in own]
    assert greedy_matches(adapted, scored_answers(adapted, asked, own, size=7)).all()
    assert not greedy_matches(adapted, scored_answers(adapted, asked, changed, size=7)).any()
    mixed = [one if at % 2 else other for at, (one, other) in enumerate(zip(own, changed, strict=True))]
    assert greedy_matches(adapted, scored_answers(adapted, asked, mixed, size=7)).tolist() == [
        bool(at % 2) for at in range(len(asked))
    ]


def test_the_odds_of_an_opening_are_those_of_transformers_probabilities(adapted, asked):
    answers = [torch.tensor([11, 5 + at % 3, 8][: 1 + at % 3]) for at in range(len(asked))]
    found = torch.zeros(len(asked), dtype=torch.float64)
    hits = torch.zeros(len(asked), dtype=torch.bool)
    batches = [OpeningOdds.of(batch, first_owner=0) for batch in scored_answers(adapted, asked, answers, size=7)]
    for batch in batches:
        assert len(batch.read) == len(batch.targets) == sum(batch.count)
        assert len(batch.rows) == len(batch.owner) == len(batch.count)
        with torch.no_grad():
            odds, matches = batch.log_odds_and_matches(adapted)
            torch.testing.assert_close(batch.log_odds(adapted), odds)
        found[batch.owner], hits[batch.owner] = odds.double(), matches
    for at in (0, 1, 8, 29):
        (batch,) = adapted.batches(adapted.encode([asked[at]]), [answers[at]])
        length = int(batch.lengths[0])
        with torch.no_grad():
            p = torch.softmax(adapted.model(**batch.inputs).logits[0].double(), -1)
        whole = float(torch.stack([p[length - 1 + k, token] for k, token in enumerate(answers[at])]).prod())
        assert float(found[at]) == pytest.approx(math.log(whole) - math.log1p(-whole), abs=1e-4)
    assert torch.equal(hits, greedy_matches(adapted, scored_answers(adapted, asked, answers)))


def test_the_odds_of_a_certain_opening_stay_finite_and_keep_their_slope(adapted, asked, monkeypatch):
    """Its probability is 1 in float32; what is missing to 1 is known all the same."""
    batches = [OpeningOdds.of(batch) for batch in scored_answers(adapted, asked[:1], [torch.tensor([5, 6])])]
    logits = torch.zeros(2, 40)
    logits[0, 5] = logits[1, 6] = 60.0
    logits.requires_grad_(True)
    monkeypatch.setattr("vlsurgery.probes.scoring.picked_logits", lambda *_: logits)
    (odds,) = batches[0].log_odds(adapted)
    assert float(odds.detach()) == pytest.approx(60 - math.log(39) - math.log(2), abs=1e-3)
    odds.backward()
    assert float(logits.grad[0, 5]) == pytest.approx(0.5, abs=1e-4)
    later = OpeningOdds.of(scored_answers(adapted, asked[:2], [torch.tensor([5])] * 2)[0], first_owner=7)
    assert sorted(later.owner.tolist()) == [7, 8]


def test_log_probabilities_sum_to_one(adapted, asked):
    for part in log_probabilities(adapted, scored_answers(adapted, asked, [torch.tensor([5, 6, 7])] * len(asked))):
        torch.testing.assert_close(part.exp().sum(-1), torch.ones(len(part)))


def test_a_completion_keeps_its_tokens_and_ends_only_where_it_ended(adapted, asked):
    for tokens in (3, 40):
        for each in complete(adapted, asked[:6], "asking", tokens=tokens):
            assert each.finished == (each.ids[-1] == adapted.tokenizer.eos_token_id)
            assert each.finished or len(each.ids) == tokens
            assert token_ids(adapted, each.text, each.ids).tolist() == list(each.ids)


def test_what_was_written_greedily_is_matched_greedily_cut_or_not(adapted, asked):
    for tokens in (3, 40):
        answers = [torch.tensor(each.ids) for each in complete(adapted, asked, "asking", tokens=tokens)]
        assert greedy_matches(adapted, scored_answers(adapted, asked, answers)).all()


def test_a_completion_in_other_tokens_is_read_anew_without_an_end(adapted):
    ids = token_ids(adapted, "i cannot help", [0, 0, 0])
    assert adapted.tokenizer.decode(ids) == "i cannot help"


@pytest.mark.parametrize(("count", "most"), [(0, 5), (3, 5), (100, 7), (8, 8)])
def test_spread_keeps_order_and_reaches_over_the_whole(count, most):
    kept = evenly_spaced(range(count), most)
    assert len(kept) == min(count, most)
    assert kept == sorted(set(kept))
    if kept:
        assert kept[0] == 0
        assert kept[-1] >= count - -(-count // most)
