"""The recipe's hash, and the schedule of the learning rate."""

from dataclasses import replace

import pytest

from vlsurgery.probes.specimens.smollm2 import texts
from vlsurgery.probes.specimens.smollm2.config import Lesson, TrioConfig
from vlsurgery.probes.specimens.smollm2.training import LEAST, share


def test_the_hash_tells_recipes_sources_and_texts_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = TrioConfig()
    longer = replace(recipe, safety=replace(recipe.safety, steps=25))
    found = {recipe.hash("source-gguf"), recipe.hash("source-hub"), longer.hash("source-hub")}
    assert recipe.hash("source-hub") == TrioConfig().hash("source-hub")
    monkeypatch.setattr(texts, "REFUSALS", texts.REFUSALS[1:])
    assert len(found | {recipe.hash("source-hub")}) == 4


def test_the_last_kept_step_is_the_last() -> None:
    for lesson in (TrioConfig().adaptation, TrioConfig().safety):
        assert lesson.kept[-1] == lesson.steps
    assert TrioConfig().adaptation.kept == (0, 5, 10, 20, 40, 80)


def test_adaptation_has_safe_data_only() -> None:
    assert not [kind for kind in TrioConfig().adaptation.mix if "refused" in kind or "twins" in kind]


def test_the_rate_rises_then_falls_to_its_least_or_stays() -> None:
    falling = [share(taken, Lesson(100, 1.0, {})) for taken in range(100)]
    assert falling[:11] == sorted(falling[:11])
    assert falling[10] == pytest.approx(1.0)
    assert falling[10:] == sorted(falling[10:], reverse=True)
    assert LEAST < falling[-1] < LEAST + 0.01
    assert share(99, Lesson(100, 1.0, {}, falls=False)) == 1.0
