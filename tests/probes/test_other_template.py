"""A model that sees, under the base's chat template: the template alone is told apart from the weights."""

import shutil
from dataclasses import replace

import pytest
import torch

from vlsurgery.probes.contrasts import contrast, difference_of_means, separate
from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.models import load
from vlsurgery.probes.next_tokens import next_tokens, read_openings
from vlsurgery.probes.other_template import NO_OPENINGS, NO_TEMPLATE, READ_ALIKE, OwnReading, in_words, under_template
from vlsurgery.probes.results import Estimate
from vlsurgery.probes.templates import ChatTemplate
from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.checkpoint import Checkpoint

TURNED = "{% for m in messages %}again {{ m['content'] }} now{% endfor %}"


@pytest.fixture(scope="module")
def few(every):
    """Twelve text prompts of each side of the contrast in each split."""
    cells: dict = {}
    for prompt in every:
        if prompt.modality == "text" and prompt.set in ("harmful", "harmless"):
            cells.setdefault((prompt.split, prompt.set), []).append(prompt)
    return [prompt for members in cells.values() for prompt in members[:12]]


@pytest.fixture(scope="module")
def adapted(trio):
    return load(trio.checkpoints["adapted"])


def own(chat, prompts) -> OwnReading:
    directions = difference_of_means(chat, contrast(prompts, "fit", "text"))
    return OwnReading(
        "adapted", directions, separate(chat, contrast(prompts, "report", "text"), directions, "a", "text")
    )


def with_own(chat, source, folder):
    """The same checkpoint with the turned template as its own."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("chat_template*"))
    chat.tokenizer.chat_template = TURNED
    chat.tokenizer.save_pretrained(folder)
    return load(Checkpoint.open(folder))


def turned(chat) -> ChatTemplate:
    """A template under which everything reads otherwise, in words that the model has."""
    return replace(chat.template, text=TURNED, is_processors=False)


def test_under_a_template_that_reads_alike_nothing_is_measured(adapted, few):
    found = under_template(adapted, replace(adapted.template), few, [5], own(adapted, few))
    assert found.said == READ_ALIKE
    assert found.cosine == []
    assert found.difference.value is None


def test_a_base_without_a_template_and_one_without_openings_are_told(adapted, few):
    assert under_template(adapted, None, few, [5], own(adapted, few)).said == NO_TEMPLATE
    found = under_template(adapted, turned(adapted), few, [], own(adapted, few))
    assert found.difference.reason == NO_OPENINGS
    assert found.cosine


def test_numbers_are_those_of_a_model_whose_own_template_it_is(adapted, few, trio, tmp_path):
    """The oracle: the same checkpoint, saved with the other template."""
    other = with_own(load(trio.checkpoints["adapted"]), trio.adapted, tmp_path / "adapted")
    found = under_template(adapted, turned(adapted), few, [5, 9], own(adapted, few))
    ours, theirs = own(adapted, few).directions, own(other, few).directions
    expected = torch.nn.functional.cosine_similarity(ours.values[0], theirs.values[0], dim=-1)
    assert found.cosine == pytest.approx(expected.tolist(), rel=1e-2)
    harmful = [p for p in few if (p.split, p.set) == ("report", "harmful")]
    odds = [read_openings(each, next_tokens(each, harmful), torch.tensor([5, 9])).odds for each in (adapted, other)]
    assert found.difference.value == pytest.approx(float((odds[1] - odds[0]).mean()))
    assert found.difference.n == 12
    assert found.other_odds.value - found.odds.value == pytest.approx(found.difference.value)


def test_the_graft_under_the_bases_template_is_the_base(trio, adapted, few, tmp_path):
    """With the base's weights, what is left between adapted and base in text is the template."""
    base = with_own(load(trio.checkpoints["base"]), trio.base, tmp_path / "base")
    pair = {role: trio.checkpoints[role] for role in ("adapted", "base")}
    live = InMemoryMerge(adapted, align(pair, like="adapted"), ("base",))
    with live.at(live.everywhere(base=1.0)):
        found = difference_of_means(adapted.under(base.template), contrast(few, "fit", "text"))
    expected = difference_of_means(base, contrast(few, "fit", "text"))
    assert torch.allclose(found.values, expected.values, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ nothing.at.all }}", "its chat template fails: UndefinedError"),
        ("{% for m in messages %}{{ m['content'] | upper }}{% endfor %}", "does not show what the user asks"),
        ("{% for m in messages %}{{ m['content'] }} {{ m['content'] | length }}{% endfor %}", "depends on the prompt"),
        ("{% for m in messages %}{{ 'now ' * 4000 }}{{ m['content'] }}{% endfor %}", "max_position_embeddings"),
    ],
)
def test_a_template_that_a_model_can_not_be_asked_under_is_told_and_ends_nothing(adapted, few, text, said):
    found = under_template(adapted, replace(turned(adapted), name="BASE", text=text), few, [5], own(adapted, few))
    assert found.said.startswith("could not be asked: ")
    assert said in found.said
    assert not found.said.endswith(".")
    assert "max_position" in said or "BASE" in found.said
    assert (found.cosine, found.difference.value, found.difference.reason) == ([], None, found.said)
    assert found.apart.value is not None


def test_the_model_keeps_its_own_template(adapted, few):
    before = [each.ids for each in adapted.encode(few[:2])]
    other = adapted.under(turned(adapted))
    assert not torch.equal(other.encode(few[:1])[0].ids, before[0])
    assert all(torch.equal(one.ids, two) for one, two in zip(adapted.encode(few[:2]), before, strict=True))


@pytest.mark.parametrize(
    ("value", "low", "high", "n", "words"),
    [
        (
            0.5,
            0.1,
            0.9,
            30,
            "is more likely to refuse harmful text: +0.50 [+0.10, +0.90] nats of log-odds (30 requests)",
        ),
        (-0.5, -0.9, -0.1, 30, "is less likely to refuse harmful text: -0.50"),
        (0.1, -0.2, 0.4, 30, "is as likely, as far as seen, to refuse harmful text: +0.10"),
        (-0.5, -0.9, -0.1, 29, "was asked too few requests to tell more: -0.50"),
    ],
)
def test_words_claim_what_the_interval_carries(value, low, high, n, words):
    change = Estimate(value=value, low=low, high=high, n=n)
    assert in_words(change).startswith(words)
