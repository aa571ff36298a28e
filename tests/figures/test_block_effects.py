"""What blocks bring: the result's own numbers, and a title that claims only what intervals carry."""

from types import SimpleNamespace

import pytest

from vlsurgery.figures import block_effects
from vlsurgery.surgery.errors import SurgeryError


def test_the_figure_has_the_measured_and_the_predicted_numbers_in_order(make: SimpleNamespace) -> None:
    tradeoff = make.explained_tradeoff()
    measured, predicted = block_effects.plot(tradeoff).data
    assert list(measured.x) == [0.55, -0.05]
    assert list(measured.y) == ["1.mlp", "0.attn"]
    assert list(predicted.x) == [0.7, 0.1]
    assert abs(measured.error_x.arrayminus[0] - 0.1) < 1e-9
    assert "0.20 toward safety" in measured.hovertext[0]
    assert "not measured (no pictures)" in measured.hovertext[0]


def test_only_what_stands_clear_of_0_is_in_the_title(make: SimpleNamespace) -> None:
    tradeoff = make.explained_tradeoff()
    info = block_effects.compute(tradeoff)
    assert info.clear == ("1.mlp",)
    assert info.parted == ("1.mlp", "0.attn")
    layout = block_effects.draw(info).layout
    assert "Without 1.mlp the merge would be worse" in layout.title.text
    assert "Predicted outside of the interval: 1.mlp and 0.attn" in layout.title.subtitle.text.replace("<br>", " ")
    unclear = tradeoff.model_copy(update={"effects": tradeoff.effects[1:]})
    assert "Of no block" in block_effects.plot(unclear).layout.title.text


def test_blocks_come_in_the_order_and_number_that_was_asked(make: SimpleNamespace) -> None:
    tradeoff = make.explained_tradeoff()
    assert [each.block for each in block_effects.compute(tradeoff, sort="layer").effects] == ["0.attn", "1.mlp"]
    assert [each.block for each in block_effects.compute(tradeoff, top=1).effects] == ["1.mlp"]
    assert [each.block for each in block_effects.compute(tradeoff, layers=[0]).effects] == ["0.attn"]
    with pytest.raises(SurgeryError, match=r"sort: .* Choose from: measured, predicted, layer"):
        block_effects.plot(tradeoff, sort="size")
    (row, _) = block_effects.rows(block_effects.compute(tradeoff))
    assert (row["block"], row["measured"], row["toward safety"]) == ("1.mlp", 0.55, 0.2)
