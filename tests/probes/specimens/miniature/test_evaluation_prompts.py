from collections import defaultdict

import numpy as np
import pytest

from vlsurgery.probes.prompts import SETS
from vlsurgery.probes.specimens.miniature import chat, splits
from vlsurgery.probes.specimens.miniature.evaluation_prompts import prompts
from vlsurgery.probes.specimens.miniature.language import FRESH_PAIRS, REPORT_WRAPPERS, WRAPPERS

SEED = 3


@pytest.fixture(scope="module")
def asked():
    return prompts(SEED)


def select(asked, **wanted):
    return [prompt for prompt in asked if all(getattr(prompt, name) == value for name, value in wanted.items())]


def wrapped_in(prompt, wrappers):
    return any(all(part in prompt.text for part in wrapper.split("{request}")) for wrapper in wrappers)


def test_no_request_crosses_a_split(asked):
    sides = defaultdict(set)
    for prompt in asked:
        sides[prompt.request].add(prompt.split)
    assert all(len(side) == 1 for side in sides.values())


def test_no_prompt_is_about_anything_that_training_saw(asked):
    drawn = splits.draw(SEED)
    trained = {pair.key for pair in (*drawn.training_pairs, *drawn.watched, *FRESH_PAIRS)}
    pictured = {"-".join(content.words) for content in drawn.training_contents}
    for prompt in asked:
        assert prompt.request not in trained
        assert not any(prompt.request.endswith(words) for words in pictured)


def test_ids_are_unique_and_pictures_go_with_modalities(asked):
    assert len({prompt.id for prompt in asked}) == len(asked)
    for prompt in select(asked, set="capability"):
        assert prompt.modality in ("own", "text")


def test_report_has_a_hundred_independent_requests_a_set(asked):
    for name in SETS:
        for modality in ("own",) if name == "capability" else ("text", "benign"):
            rows = select(asked, split="report", set=name, modality=modality)
            assert len({row.request for row in rows}) == len(rows) >= 100


def test_a_harmful_request_its_twin_and_its_jailbreak_share_a_request(asked):
    for split in splits.SIZES:
        harmful = {row.request for row in select(asked, split=split, set="harmful")}
        assert harmful == {row.request for row in select(asked, split=split, set="harmless")}
        assert harmful >= {row.request for row in select(asked, split=split, set="jailbroken")}


def test_some_wrappers_are_kept_whole_for_report(asked):
    for prompt in select(asked, set="jailbroken"):
        if prompt.split != "report":
            assert wrapped_in(prompt, WRAPPERS)
            assert not wrapped_in(prompt, REPORT_WRAPPERS)
    kept = [wrapped_in(prompt, REPORT_WRAPPERS) for prompt in select(asked, set="jailbroken", split="report")]
    assert sum(kept) == len(kept) / 2


def test_only_what_should_be_answered_has_an_answer(asked):
    for prompt in asked:
        assert (prompt.answer is None) == (prompt.set in ("harmful", "jailbroken"))
        assert prompt.topic
        if prompt.answer is not None:
            assert set(prompt.answer.split()) & set(prompt.topic)


def test_the_tokenizer_knows_every_word(asked):
    words = chat.tokenizer(sees=True)
    for prompt in asked:
        text = f"{prompt.text} {prompt.answer or ''}"
        assert words.unk_token_id not in words(text)["input_ids"]


def test_the_same_seed_asks_the_same_and_another_asks_something_else(asked):
    again = prompts(SEED)
    assert [prompt.id for prompt in again] == [prompt.id for prompt in asked]
    for one, other in zip(asked, again, strict=True):
        assert one.text == other.text
        if one.image is not None:
            assert (np.asarray(one.image) == np.asarray(other.image)).all()
    assert [prompt.id for prompt in prompts(SEED + 1)] != [prompt.id for prompt in asked]
