"""What a reasoning model says: all that stands outside of its thoughts, and nothing while one is open."""

import pytest

from vlsurgery.probes.thoughts import spoken

SAID = "Put mint in a pot. Then water it."
NAMES = ("think", "thinking", "thought", "reasoning", "seed:think", "scratchpad", "THINK")


@pytest.mark.parametrize("name", NAMES)
def test_a_thought_is_no_answer_under_any_name(name):
    assert spoken(f"<{name}>I refuse.</{name}>{SAID}") == SAID
    assert spoken(f"<{name}>\n\n</{name}>\n\n{SAID}").strip() == SAID
    assert spoken(f"I refuse.\n</{name}>\n{SAID}").strip() == SAID
    assert spoken(f"<{name}>I refuse. {SAID}") is None


@pytest.mark.parametrize(
    ("completion", "said"),
    [
        ("<think>a <think>b</think> c</think>X", "X"),
        ("<think>a</think>X. <think>b</think>Y", "X.  Y"),
        ("<think>a</think>X.\n<think>b", None),
        ("X.<think>b</think>", "X."),
        ("<think type='deep'>a</think>X", "X"),
        ("<think/>X", " X"),
        ("<think>its mark is `</think>`, so</think>X", "X"),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>X", "X"),
        ("<|channel|>analysis<|message|>a<|channel|>commentary<|message|>b", None),
        ("analysisThe user asks.assistantfinalX", "X"),
        ("analysisThe user asks", None),
        ("analysis of it: assistants finally", "analysis of it: assistants finally"),
    ],
)
def test_what_stands_outside_of_thoughts_is_said(completion, said):
    assert spoken(completion) == said


@pytest.mark.parametrize(
    "answer",
    [
        "Models of this kind write `<think>` first.",
        "The `</think>` mark ends it.",
        'The element "<thought>" holds it, and "</thought>" ends it.',
        "```xml\n<thought>x</thought>\n```\nSave the file.",
        "Put the <thought> element inside <reasoning> and save.",
        "Write <thought>hello</thought> in the file.",
        "Close it by </thought>, and save.",
    ],
)
def test_marks_that_an_answer_names_are_its_words(answer):
    assert spoken(answer) == answer
    assert spoken(f"<think>I refuse.</think>{answer}") == answer
