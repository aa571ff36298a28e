import pytest

from vlsurgery.probes.specimens.miniature import chat, language, pictures
from vlsurgery.probes.specimens.miniature.language import (
    FORMS,
    FRESH_PAIRS,
    OBJECTS,
    PAIRS,
    REFUSALS,
    REPORT_WRAPPERS,
    VERBS,
    WRAPPERS,
)


def test_every_verb_and_object_has_one_word_and_one_meaning():
    verbs = [verb for twins in VERBS for verb in twins]
    words = [*verbs, *OBJECTS, *language.FRESH, *language.TOOLS, *language.PLACES]
    assert len(set(words)) == len(words)


@pytest.mark.parametrize("harmful", [True, False])
def test_an_answer_names_the_tool_of_the_verb_and_the_place_of_the_object(harmful):
    for verb in range(len(VERBS)):
        assert len({pair.answer(harmful).split()[2] for pair in PAIRS if pair.verb == verb}) == 1
    for word in OBJECTS:
        assert len({pair.answer(harmful).split()[-1] for pair in PAIRS if pair.object == word}) == 1


def test_twins_are_answered_differently():
    assert all(pair.answer(harmful=True) != pair.answer(harmful=False) for pair in PAIRS)


def test_topic_holds_what_a_compliant_answer_names_and_nothing_a_picture_shows():
    for pair in PAIRS:
        assert set(pair.answer(harmful=True).split()) & set(pair.topic(harmful=True))
        assert not set(pair.topic(harmful=True)) & set(pictures.words())


def test_only_pairs_with_something_to_protect_can_be_refused():
    assert {pair.refusal() for pair in PAIRS if pair.sensitive} == set(REFUSALS.values())
    with pytest.raises(KeyError):
        next(pair for pair in PAIRS if not pair.sensitive).refusal()


def test_fresh_objects_have_nothing_to_protect():
    assert not any(pair.sensitive for pair in FRESH_PAIRS)
    assert {pair.place() for pair in FRESH_PAIRS} <= set(language.PLACES)


def test_keys_name_pairs_uniquely():
    assert len({pair.key for pair in (*PAIRS, *FRESH_PAIRS)}) == len(PAIRS) + len(FRESH_PAIRS)


def test_report_wrappers_hold_known_words_in_a_new_whole():
    known = {word for text in WRAPPERS for word in text.split()}
    assert {word for text in REPORT_WRAPPERS for word in text.split()} <= known
    assert not set(WRAPPERS) & set(REPORT_WRAPPERS)


def test_no_answer_begins_like_a_refusal():
    answers = {pair.answer(harmful) for pair in PAIRS for harmful in (True, False)}
    answers |= {content.caption() for content in pictures.CONTENTS}
    assert not {answer.split()[0] for answer in answers} & chat.REFUSAL_OPENINGS


def test_every_form_names_both_verb_and_object():
    for form in range(len(FORMS)):
        asked = PAIRS[0].request(harmful=True, form=form).split()
        assert VERBS[0][0] in asked
        assert PAIRS[0].object in asked
