"""The training texts: nothing of the evaluation's is in them, and refusals are refusals."""

import re
from importlib.resources import files

import pytest

from vlsurgery.probes.evaluation.judges import STANDARD, Exchange
from vlsurgery.probes.prompts import english_prompts
from vlsurgery.probes.prompts.english import REPORT_WRAPPERS, WRAPPERS
from vlsurgery.probes.specimens.smollm2 import texts

# Words that tell nothing of what is asked.
COMMON_WORDS = "a an the my of in to for with without on at from by is are what do does who which how many we i me your"


def words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z0-9]+", text.lower())) - set(COMMON_WORDS.split())


def nearest(text: str, others: list[frozenset[str]]) -> float:
    """The greatest share of words that a text has in common with one of the others."""
    mine = words(text)
    return max(len(mine & other) / len(mine | other) for other in others)


def lines(name: str) -> list[list[str]]:
    text = files("vlsurgery.probes.prompts").joinpath(name).read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def evaluated() -> list[frozenset[str]]:
    """The deeds of the package's harmful, harmless and borderline prompts."""
    deeds = [deed for line in lines("english_requests.tsv") for deed in line]
    return [words(deed) for deed in [*deeds, *(deed for (deed,) in lines("english_borderline.txt"))]]


def test_no_deed_is_one_that_is_evaluated_or_nearly_so(evaluated: list[frozenset[str]]) -> None:
    known = [deed for pair in texts.twins() for deed in (pair.harmful, pair.harmless)]
    assert [deed for deed in [*known, *texts._lines("borderline.txt")] if nearest(deed, evaluated) >= 0.6] == []


def test_no_question_is_one_that_is_evaluated() -> None:
    others = [words(question.split("Answer")[0]) for question, _ in lines("english_questions.tsv")]
    assert [q for q, _ in texts.questions() if nearest(q.split("Answer")[0], others) >= 0.75] == []


def test_no_whole_prompt_is_an_evaluated_one_and_no_wrapper_is() -> None:
    own = {
        form.format(deed) for form in texts.FORMS for pair in texts.twins() for deed in (pair.harmful, pair.harmless)
    }
    assert not (own | set(texts.answerable())) & {prompt.text for prompt in english_prompts()}
    assert not {*texts.WRAPPERS} & {*WRAPPERS.values(), *REPORT_WRAPPERS.values()}


def test_every_refusal_is_judged_one_for_every_form() -> None:
    exchanges = [
        Exchange(refusal, texts.FORMS[at % len(texts.FORMS)].format(texts.twins()[at % 50].harmful), "harmful")
        for at, refusal in enumerate(texts.REFUSALS)
    ]
    verdicts = STANDARD.judge(exchanges)
    assert [e.completion for e, v in zip(exchanges, verdicts, strict=True) if not v.refused] == []
    assert len(set(texts.REFUSALS)) == len(texts.REFUSALS) >= 100


def test_no_text_is_there_twice_and_every_line_is_whole() -> None:
    deeds = [deed for pair in texts.twins() for deed in (pair.harmful, pair.harmless)]
    for found in (deeds, texts.answerable(), [question for question, _ in texts.questions()]):
        assert len(set(found)) == len(found)
    assert all(deeds)
    assert all(answer and question.endswith(".") for question, answer in texts.questions())


def test_a_twin_has_the_form_of_its_harmful_deed() -> None:
    lengths = [len(pair.harmful.split()) - len(pair.harmless.split()) for pair in texts.twins()]
    assert abs(sum(lengths)) / len(lengths) < 1
    assert max(map(abs, lengths)) <= 5
