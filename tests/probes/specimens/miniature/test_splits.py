from hypothesis import given, settings, strategies as st

from vlsurgery.probes.specimens.miniature import splits
from vlsurgery.probes.specimens.miniature.language import OBJECTS, PAIRS, VERBS
from vlsurgery.probes.specimens.miniature.pictures import ATTRIBUTES, CONTENTS

SEEDS = st.integers(0, 10_000)


@given(SEEDS)
@settings(max_examples=25, deadline=None)
def test_each_pair_and_each_content_is_in_exactly_one_place(seed):
    drawn = splits.draw(seed)
    pairs = [pair for hand in (*drawn.harmful.values(), *drawn.borderline.values()) for pair in hand]
    assert sorted([*pairs, *drawn.watched, *drawn.training_pairs]) == sorted(PAIRS)
    contents = [content for hand in drawn.contents.values() for content in hand]
    assert sorted([*contents, *drawn.training_contents]) == sorted(CONTENTS)


@given(SEEDS)
@settings(max_examples=25, deadline=None)
def test_training_meets_every_verb_object_and_attribute(seed):
    drawn = splits.draw(seed)
    for sensitive in (True, False):
        assert {pair.verb for pair in drawn.training_pairs if pair.sensitive is sensitive} == set(range(len(VERBS)))
    assert {pair.object for pair in drawn.training_pairs} == set(OBJECTS)
    seen = {word for content in drawn.training_contents for word in content.words}
    assert seen == {word for words in ATTRIBUTES for word in words}


def test_harmful_hands_hold_only_what_can_be_refused():
    drawn = splits.draw(3)
    assert all(pair.sensitive for hand in (*drawn.harmful.values(), drawn.watched) for pair in hand)
    assert not any(pair.sensitive for hand in drawn.borderline.values() for pair in hand)


def test_a_seed_always_deals_the_same_and_another_seed_something_else():
    assert splits.draw(1) == splits.draw(1)
    assert splits.draw(1) != splits.draw(2)
