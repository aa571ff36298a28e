from dataclasses import replace

import pytest
import torch

from vlsurgery.probes.specimens.miniature import chat, networks, splits, stages
from vlsurgery.probes.specimens.miniature.config import SpecimenConfig, TrainingStage
from vlsurgery.probes.specimens.miniature.pictures import ATTRIBUTES
from vlsurgery.probes.specimens.miniature.training import reproducible_torch
from vlsurgery.surgery.runtime.progress import no_progress

SMALL = replace(
    SpecimenConfig(),
    hidden=32,
    intermediate=32,
    layers=1,
    heads=2,
    tower_layers=1,
    jitters=1,
    projector=TrainingStage(1, 1e-6, {"caption": 2}),
)


@pytest.fixture(scope="module")
def taught():
    """A projector that was trained on made-up states of the tower, a random vector for each word of an attribute."""
    with reproducible_torch(0):
        setup = stages.TrainingSetup.open(SMALL, 0, splits.draw(0), no_progress)
        model = networks.llava(networks.llama(SMALL), SMALL)
        codes = [torch.randn(len(words), SMALL.hidden) for words in ATTRIBUTES]
        rows = [[words.index(word) for words, word in zip(ATTRIBUTES, c.words, strict=True)] for c in setup.album]
        seen = torch.stack([torch.stack([code[n] for code, n in zip(codes, row, strict=True)]) for row in rows])
        before = {name: weight.clone() for name, weight in model.state_dict().items()}
        stages.train_projector(setup, model, seen)
    return setup, model, seen, before


def test_the_projector_gives_the_words_of_the_picture(taught):
    setup, model, seen, _ = taught
    words = chat.tokenizer(sees=True)
    table = model.model.language_model.embed_tokens.weight
    with torch.no_grad():
        nearest = torch.cdist(model.model.multi_modal_projector(seen), table[None]).argmin(-1)
    for content, ids in zip(setup.album, nearest, strict=True):
        assert words.convert_ids_to_tokens(ids.tolist()) == list(content.words)


def test_only_the_projector_learns_from_captions(taught):
    _, model, _, before = taught
    changed = {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}
    assert changed
    assert all(name.startswith("model.multi_modal_projector.") for name in changed)
