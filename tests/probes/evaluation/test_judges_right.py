"""Right answers: the answer alone, or alone in a sentence, and no other beside it."""

import pytest
from hypothesis import given, strategies as st

from vlsurgery.probes.evaluation.judges import is_right

words = st.text(st.sampled_from("abcdeXYZ0123456789"), min_size=1, max_size=8)


@given(st.text(st.characters(exclude_characters="<[")), st.sampled_from(["", " ", "\n"]))
def test_every_answer_is_right_as_it_is(answer, space):
    assert is_right(f"{space}{answer}{space}", answer)


@given(words, words)
def test_single_answers_are_right_for_each_other_or_neither_is(one, other):
    assert is_right(one, other) == is_right(other, one)


@given(words)
def test_case_punctuation_and_spacing_do_not_count(word):
    for dressed in (word.upper(), word.lower(), f" {word}. ", f"**{word}**", f"“{word}”", f"{word} !"):
        assert is_right(dressed, word)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Red.", "red"),
        (" RED ", "red"),
        ("“red”", "red"),
        ("**Red**", "red"),
        ("red .", "red"),
        ("The circle is red.", "red"),
        ("The capital of France is Paris.", "Paris"),
        ("Paris is the capital of France.", "Paris"),
        ("Great question! The capital is Paris. It lies on the Seine.", "Paris"),
        ("There are three.", "3"),
        ("3", "three"),
        ("The answer is 42.", "42"),
        ("The sum is -3.", "-3"),
        ("Yes, there is a dog on the sofa.", "yes"),
        ("No.", "no"),
        ("It was New York.", "new york"),
        ("<think>Is it Rome or Paris?</think>Paris", "Paris"),
        ("The month after December is January.", "January"),
        ("January is the month after December.", "January"),
        ("The day of the week that comes after Thursday is Friday.", "Friday"),
        ("The mix of red paint is called orange.", "orange"),
        ("4 * 10 = 40", "40"),
        ("37 + 13 = 50.", "50"),
        ("The sum of 3 and 4 is seven.", "7"),
        ("To find 8 times 3, we can use the formula 8 * 3 = 24. This is a common way.", "24"),
        ("The capital of Qatar is called Doha.", "Doha"),
    ],
)
def test_right_answers(text, answer):
    assert is_right(text, answer)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("", "red"),
        ("redder", "red"),
        ("3", "-3"),
        ("35", "3.5"),
        ("red red", "red"),
        ("...", "red"),
        ("It is red or blue.", "red"),
        ("It is blue and red.", "red"),
        ("The circle is not red.", "red"),
        ("The red square is beside the circle, I think", "circle"),
        ("There are 3 or 4.", "3"),
        ("Between 2 and 3", "3"),
        ("Paris is nice, but the capital is Rome.", "Paris"),
        ("There is no dog.", "no"),
        ("I would say yes.", "yes"),
        ("Yes and no.", "yes"),
        ("It could be Lyon, and perhaps Paris", "Paris"),
        ("<think>Paris", "Paris"),
        ("It is in Paris, Texas, I think.", "Paris"),
        ("The month after December is not January.", "January"),
        ("The month after December is February.", "January"),
        ("The month is December, the next is January", "January"),
        ("The month after December is January or May.", "January"),
        ("The red green blue one is yellow.", "yellow"),
        ("Of red, green and blue, the figure is blue.", "blue"),
        ("Red is the circle and blue the square.", "red"),
        ("I see red, so the answer is blue.", "blue"),
        ("4 * 10 = 50", "40"),
        ("4 * 10 = 40 = 400 / 10", "40"),
        ("1 2 3 4 is 5", "5"),
        ("The answer is 4, and 4 + 1 = 5", "4"),
        ("The answer is 5. The sum of 3 and 4 is 7.", "7"),
    ],
)
def test_wrong_answers(text, answer):
    assert not is_right(text, answer)


@given(st.lists(st.integers(0, 99), min_size=2, max_size=2, unique=True))
def test_two_numbers_are_no_answer(numbers):
    one, other = numbers
    assert is_right(f"The answer is {one}", str(one))
    assert not is_right(f"The answer is {other} and {one}", str(one))
