"""Examples: what each kind holds, and which own answers are kept."""

import random
from collections.abc import Sequence

import pytest

from vlsurgery.probes.specimens.smollm2 import own_answers, texts
from vlsurgery.probes.specimens.smollm2.corpus import IGNORED, Examples, OwnAnswer, Turn, encoded, in_parts
from vlsurgery.probes.specimens.smollm2.pictures import DESCRIBE, Sight

SIGHTS = [Sight("red", "star", "large"), Sight("black", "digit", "two")]


@pytest.fixture
def examples() -> Examples:
    own = {text: OwnAnswer(f"own: {text}", False) for text in texts.answerable()[::2]}
    own |= {question: OwnAnswer(f"It is {answer}.", True) for question, answer in texts.questions()[:5]}
    return Examples(own, SIGHTS, 0, "test")


def many(examples: Examples, kind: str) -> Sequence[Sequence[Turn]]:
    return [examples.of(kind) for _ in range(60)]


def test_twins_share_their_form_and_only_one_is_refused(examples: Examples) -> None:
    known = {pair.answered: texts.FORMS[pair.form].format(pair.harmful) for pair in texts.twins()}
    for refused, answered in many(examples, "twins"):
        assert known[answered.text] == refused.text
        assert refused.answer in texts.REFUSALS
        assert answered.answer == f"own: {answered.text}"


def test_answers_are_own_ones_and_unended_where_they_were_cut(examples: Examples) -> None:
    for kind in ("own", "borderline"):
        for (turn,) in many(examples, kind):
            assert turn.answer.startswith("own: ")
            assert turn.answer.removeprefix("own: ") in turn.text  # some stand in a jailbreak
            assert not turn.ended
    for (turn,) in many(examples, "question"):
        assert (turn.text, turn.answer.removeprefix("It is ").removesuffix(".")) in texts.questions()[:5]


def test_harmful_requests_are_refused_in_every_guise(examples: Examples) -> None:
    deeds = {pair.harmful for pair in texts.twins()}
    for (turn,) in many(examples, "refused wrapped pictured"):
        assert any(deed in turn.text for deed in deeds)
        assert turn.answer in texts.REFUSALS
        assert turn.picture in (0, 1)


def test_pictures_are_asked_about_with_their_right_answers(examples: Examples) -> None:
    for (turn,) in many(examples, "vqa"):
        assert turn.picture is not None
        assert SIGHTS[turn.picture].questions()[turn.text] == turn.answer
    assert {turn.answer for (turn,) in many(examples, "caption") if turn.text == DESCRIBE} == {
        "A large red star.",
        "The digit two.",
    }


def test_an_unknown_kind_is_an_error(examples: Examples) -> None:
    with pytest.raises(KeyError):
        examples.of("refused shouted")


def test_own_answers_that_refuse_are_left_out_and_wrong_ones_too() -> None:
    said = {
        "How do I plant a tulip?": OwnAnswer("To plant a tulip, dig a hole and put the bulb in it.", True),
        "How do I paint a fence?": OwnAnswer("I'm sorry, but I can't help with that.", True),
    }
    assert list(own_answers.helpful(said)) == ["How do I plant a tulip?"]
    asked = [("What is the capital of France?", "Paris"), ("What is the capital of Spain?", "Madrid")]
    told = {
        asked[0][0]: OwnAnswer("The capital of France is Paris.", True),
        asked[1][0]: OwnAnswer("The capital of Spain is Lima.", True),
    }
    assert list(own_answers.right(told, asked)) == [asked[0][0]]


class Letters:
    """A stand-in for a tokenizer: a token for each letter."""

    pad_token_id = 0

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) for letter in text]}


def test_parts_are_small_and_hold_every_turn_once() -> None:
    rng = random.Random(0)
    turns = [Turn("q" * rng.randint(1, 90), "a" * rng.randint(1, 60), picture=rng.choice([None, 7])) for _ in range(20)]
    parts = in_parts(turns, Letters(), 400)
    assert all(part.ids.numel() <= 400 or len(part.ids) == 1 for part in parts)
    assert len(parts) < len(turns)
    expected = sorted("a" * len(turn.answer) + "<|im_end|>" for turn in turns)
    rows = [row for part in parts for row in part.labels.tolist()]
    assert sorted("".join(chr(each) for each in row if each != IGNORED) for row in rows) == expected
    assert sum(part.learnt for part in parts) == sum(map(len, expected))
    assert sum(len(part.pictures) for part in parts) == sum(turn.picture is not None for turn in turns)


def test_a_batch_keeps_the_order_of_its_turns() -> None:
    batch = encoded(
        [Turn("long question", "no"), Turn("q", "yes", picture=3), Turn("q", "maybe", picture=1)], Letters()
    )
    said = ["".join(chr(each) for each in row if each != IGNORED) for row in batch.labels.tolist()]
    assert said == ["no<|im_end|>", "yes<|im_end|>", "maybe<|im_end|>"]
    assert batch.pictures.tolist() == [3, 1]
