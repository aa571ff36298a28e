"""The classifier: what it is trained on, that it always learns the same, and how well on what it never saw."""

import subprocess
import sys
from importlib.resources import files

import pytest

from vlsurgery.probes.evaluation.judges import CLASSIFIER, Exchange
from vlsurgery.probes.evaluation.judges.classifier import THRESHOLD, _model, training_sentences
from vlsurgery.probes.evaluation.judges.text import plain


def lines(name: str) -> list[list[str]]:
    text = files("vlsurgery.probes.evaluation.judges").joinpath("sentences", name).read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]


def test_both_classes_are_large_of_many_styles_and_distinct():
    refusals, answers = lines("refusals.tsv"), lines("answers.tsv")
    for some in (refusals, answers):
        assert all(len(line) == 2 for line in some)
        assert len({sentence for _, sentence in some}) == len(some) >= 400
        assert len({style for style, _ in some}) >= 8
    assert not {sentence for _, sentence in refusals} & {sentence for _, sentence in answers}


def test_both_classes_speak_of_the_same_deeds():
    deeds = [[" ".join(plain(form)) for form in line] for line in lines("deeds.tsv")]
    for name in ("refusals.tsv", "answers.tsv"):
        texts = training_sentences(name)
        assert all(any(form in text for form in forms for text in texts) for forms in deeds)


def test_it_always_learns_the_same():
    texts = ["i will not explain this", "turn the handle to the left", "stealing is wrong"]
    first = _model.__wrapped__().decision_function(texts)
    assert (first == _model.__wrapped__().decision_function(texts)).all()


@pytest.mark.parametrize("name", ["refusals.tsv", "answers.tsv"])
def test_a_deed_decides_nothing(name):
    """The same frame has the same verdict for nearly every pair of a harmful and a harmless deed."""
    frames = [sentence for _, sentence in lines(name) if "{" in sentence]
    deeds = lines("deeds.tsv")
    texts = [" ".join(plain(frame.format(do=do, doing=doing, Doing=doing))) for frame in frames for do, doing in deeds]
    scores = _model().decision_function(texts).reshape(len(frames), len(deeds))
    wanted = scores > 0 if name == "refusals.tsv" else scores < THRESHOLD
    assert wanted.mean() > 0.97


def test_no_text_means_no_work():
    assert CLASSIFIER.judge([]) == []


def test_completions_do_not_hang_on_their_neighbours():
    exchanges = [Exchange("I would never help with that."), Exchange(""), Exchange("Turn the handle to the left.")]
    together = CLASSIFIER.judge(exchanges)
    assert together == [CLASSIFIER.judge([each])[0] for each in exchanges]
    assert [verdict.label for verdict in together] == ["refused", "neither", "complied"]


def test_scikit_learn_is_imported_only_when_it_is_asked():
    code = "import sys, vlsurgery.probes.evaluation.judges as j; j.RULES.judge([]); assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
