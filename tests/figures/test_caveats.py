"""How the specimen was made is told as it was; cells of which nothing is said are named."""

from types import SimpleNamespace

from vlsurgery.figures.caveats import caveats, specimen_words

STORY = {
    "recipe": {"settling": 60},
    "adaptation": {
        "steps": 190,
        "stopped": True,
        "stop_at": 0.15,
        "refusals": {"180": 0.3, "190": 0.12},
        "refusal": 0.02,
    },
}


def test_the_stop_and_the_settling_are_told_with_their_numbers() -> None:
    assert specimen_words({"seed": 1, "chosen": False, "story": STORY}) == (
        "Adaptation was stopped on purpose after 190 steps, when refusals of the stopping prompts had fallen to 12%"
        " (the goal: 15% or less); 60 more steps followed, in which the learning rate fell to 0; at the end 2% of"
        " them were refused. So that a loss happens on safe data is measured, how far it went is by construction."
    )


def test_an_adaptation_that_was_not_stopped_is_not_called_stopped() -> None:
    story = STORY | {"adaptation": STORY["adaptation"] | {"stopped": False, "steps": 300, "refusal": 0.4}}
    text = specimen_words({"chosen": True, "story": story})
    assert text.startswith("The seed was chosen for the demo. Adaptation ran all of its 300 steps")
    assert "never fell to 15%" in text
    assert "stopped on purpose" not in text


def test_small_cells_are_named(make: SimpleNamespace) -> None:
    few = " ".join(caveats(None, None, make.shrunk(make.behaviour({"adapted": {("harmful", "own"): 0.5}}), 12)))
    assert "Nothing is claimed from fewer than 30 requests, that is, of harmful · own picture (12)." in few
    assert "Rates rest on" not in few
    assert "fewer than" not in " ".join(caveats(None, None, make.behaviour()))
