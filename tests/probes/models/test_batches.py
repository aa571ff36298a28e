"""Batches: what goes together, and what each input becomes in company and under an answer."""

import pytest
import torch

from vlsurgery.probes.models.batches import Encoded, Rows
from vlsurgery.probes.models.extras import accepted, extended, is_per_token, needs_picture
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.prompts.pictures import blank

PICTURE = blank()


def item(length, **extras):
    modality, picture = ("own", PICTURE) if extras else ("text", None)
    prompt = Prompt("p", "r", "harmless", "hi", "fit", modality, picture)
    return Encoded(prompt, torch.arange(1, length + 1), extras, 1)


def test_pictures_of_different_shapes_are_never_in_one_batch():
    rows = Rows([item(5, pixel_values=torch.zeros(1, 3, side, side)) for side in (4, 6, 4, 6)] + [item(5)])
    found = rows.divided(9, 999)
    assert sorted(map(sorted, found)) == [[0, 2], [1, 3], [4]]
    assert rows.collated([0, 2]).inputs["pixel_values"].shape == (2, 3, 4, 4)


def test_what_differs_in_kind_is_not_in_one_batch():
    masked = {"pixel_values": torch.zeros(1, 3), "pixel_attention_mask": torch.ones(1, 3)}
    halves = {"pixel_values": torch.zeros(1, 3, dtype=torch.float16)}
    rows = Rows([item(4, pixel_values=torch.zeros(1, 3)), item(4, **masked), item(4, **halves)])
    assert len(rows.divided(9, 999)) == 3


@pytest.mark.parametrize("most", [1, 30, 64, 999])
def test_batches_hold_every_row_once_and_no_more_tokens_than_allowed(most):
    rows = Rows([item(length) for length in (3, 9, 4, 20, 8, 8, 1)], room=2)
    found = rows.divided(4, most)
    assert sorted(at for batch in found for at in batch) == list(range(7))
    assert all(len(batch) == 1 or (rows.tokens(batch) <= most and len(batch) <= 4) for batch in found)


def test_a_mask_of_three_dimensions_goes_on_as_its_last_row_and_is_padded_with_nothing():
    """Mllama's answers see the tiles that the prompt's end sees."""
    mask = torch.zeros(1, 4, 1, 2, dtype=torch.long)
    mask[0, 2:, 0, 0] = 1
    longer = torch.cat([torch.zeros(1, 2, 1, 2, dtype=torch.long), mask], dim=1)
    items = [item(4, cross_attention_mask=mask), item(6, cross_attention_mask=longer)]
    answers = [torch.tensor([7, 7, 7]), torch.tensor([7])]
    batch = Rows(items, answers).collated([0, 1])
    found = batch.inputs["cross_attention_mask"]
    assert found.shape == (2, 7, 1, 2)
    assert found[0, :, 0, 0].tolist() == [0, 0, 1, 1, 1, 1, 1]
    assert found[1, :, 0, 0].tolist() == [0, 0, 0, 0, 1, 1, 1]
    left = Rows(items, None, "left").collated([0, 1]).inputs["cross_attention_mask"]
    assert left[0, :, 0, 0].tolist() == [0, 0, 0, 0, 1, 1]


def test_token_types_go_on_as_text_and_of_paligemma_as_the_suffix():
    types = torch.zeros(1, 3, dtype=torch.long)
    rows = [item(3, token_type_ids=types), item(5, token_type_ids=torch.zeros(1, 5, dtype=torch.long))]
    answers = [torch.tensor([7, 7]), torch.tensor([7])]
    plain = Rows(rows, answers).collated([0, 1]).inputs["token_type_ids"]
    assert not plain.any()
    suffix = Rows(rows, answers, types={"token_type_ids": 1}).collated([0, 1]).inputs["token_type_ids"]
    assert suffix.tolist() == [[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 1]]


def test_position_ids_go_on():
    assert extended("position_ids", torch.tensor([[0, 1, 2]]), 2, {}).tolist() == [0, 1, 2, 3, 4]


def test_pixels_are_never_per_token_whatever_their_shape():
    assert not is_per_token("pixel_values", torch.zeros(1, 5, 2), 5)
    assert not is_per_token("pixel_attention_mask", torch.ones(1, 5, dtype=torch.long), 5)
    assert not is_per_token("image_position_ids", torch.ones(1, 5, 2, dtype=torch.long), 5)
    assert is_per_token("token_type_ids", torch.ones(1, 5, dtype=torch.long), 5)


class Takes(torch.nn.Module):
    def forward(self, input_ids, pixel_values, token_type_ids=None, labels=None, **others):  # noqa: ARG002 -- its names count
        return input_ids


def test_what_forward_does_not_name_and_labels_are_dropped():
    ones = torch.ones(1, 2)
    made = {"pixel_values": ones, "token_type_ids": ones, "labels": ones, "offset_mapping": ones}
    assert set(accepted(Takes(), made)) == {"pixel_values", "token_type_ids"}
    assert needs_picture(Takes())
    assert not needs_picture(torch.nn.Identity())
