"""How the specimen was made is told as it was; cells of which nothing is said are named."""

from types import SimpleNamespace

from vlsurgery.figures.caveats import caveats, specimen_words


def test_a_specimen_is_told_as_its_story_tells_it() -> None:
    story = {"adaptation": {"told": "Adaptation ran 250 steps."}}
    assert specimen_words({"seed": 1, "chosen": False, "story": story}) == "Adaptation ran 250 steps."
    assert specimen_words({"chosen": True, "story": story}).startswith("The seed was chosen for the demo. Adaptation")
    assert "stopped on purpose" in specimen_words({"chosen": True, "story": {"adaptation": {"steps": 3}}})


def test_small_cells_are_named(make: SimpleNamespace) -> None:
    few = " ".join(caveats(None, None, make.shrunk(make.behaviour({"adapted": {("harmful", "own"): 0.5}}), 12)))
    assert "Nothing is claimed from fewer than 30 requests, that is, of harmful · own picture (12)." in few
    assert "Rates rest on" not in few
    assert "fewer than" not in " ".join(caveats(None, None, make.behaviour()))


def test_the_real_trio_is_told_and_its_requests_are_no_recombinations(make: SimpleNamespace) -> None:
    result = make.behaviour().model_copy(update={"settings": {"trio": {"seed": 0, "told": "Real weights."}}})
    first, *others = caveats(None, None, result)
    assert first == "Real weights."
    assert not any("known words" in each for each in others)
