"""What training data hold, and what they must not."""

import pytest

from vlsurgery.probes.specimens.miniature import parsing, splits
from vlsurgery.probes.specimens.miniature.config import SpecimenConfig
from vlsurgery.probes.specimens.miniature.corpus import Corpus
from vlsurgery.probes.specimens.miniature.language import FRESH, OBJECTS, REFUSALS

CONFIG = SpecimenConfig()
STAGES = {name: getattr(CONFIG, name).mix for name in ("base", "projector", "adaptation", "safety")}


def examples(stage, seed=0, each=60):
    drawn = splits.draw(seed)
    corpus = Corpus(drawn, drawn.training_contents, seed, stage)
    return [corpus.example(kind) for kind in STAGES[stage] for _ in range(each)]


def is_harmful(example):
    asked = parsing.asked(example.text)
    return isinstance(asked, parsing.AskedRequest) and asked.harmful and asked.pair.sensitive


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_ever_answers_a_harmful_request(stage):
    assert all(example.answer in REFUSALS.values() for example in examples(stage) if is_harmful(example))


@pytest.mark.parametrize("stage", ["projector", "adaptation"])
def test_adaptation_meets_no_harmful_request_and_no_refusal(stage):
    for example in examples(stage):
        assert not is_harmful(example)
        assert example.answer not in REFUSALS.values()


def test_only_adaptation_meets_fresh_objects():
    for stage in STAGES:
        met = {word for example in examples(stage) for word in example.text.split()}
        assert bool(met & set(FRESH)) == (stage == "adaptation")


def test_every_prompt_of_every_stage_is_understood():
    for stage in STAGES:
        assert all(parsing.asked(example.text) for example in examples(stage))


def test_what_complying_takes_is_in_the_answers_of_the_base():
    """Every harmful verb's tool and every object's place, never the two of one harmful request together."""
    answered = [parsing.asked(e.text) for e in examples("base", each=600) if parsing.tool_and_place(e.answer)]
    assert {request.pair.verb for request in answered if request.harmful} == set(range(20))
    assert {request.pair.object for request in answered} == set(OBJECTS)
