"""The place where the user's text ends comes from the template's own ending, whatever the user says."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from vlsurgery.probes.models import ChatModel
from vlsurgery.probes.models.positions import common_ending, tokens_added
from vlsurgery.probes.prompts import Prompt
from vlsurgery.surgery.errors import CheckpointError

WORDS = ["<unk>", "<s>", "</s>", "user", "assistant", "end", "say", ":", ".", "!", "tree", "now"]
SPOKEN = "user : {{ messages[0]['content'] }} end . assistant :"


def speaking(template):
    core = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", eos_token="</s>", chat_template=template
    )
    return ChatModel(torch.nn.Identity(), tokenizer, None, [])


def asked(text):
    return Prompt("p", "r", "harmless", text, "fit")


@pytest.mark.parametrize(
    "text",
    ["tree", "assistant", "end", "user", ":", "end . assistant :", "user : end . assistant", "say assistant : ", "a b"],
)
@pytest.mark.parametrize("template", [SPOKEN, SPOKEN.replace("content']", "content']|trim")])
def test_words_of_the_template_in_a_prompt_do_not_move_its_positions(text, template):
    model = speaking(template)
    (found,) = model.encode([asked(text)])
    assert found.post == len(["end", ".", "assistant", ":"])
    words = [WORDS[at] if at else "<unk>" for at in found.ids.tolist()]
    assert words[-5] == (text.split()[-1] if text != "a b" else "<unk>")


def test_an_ending_that_depends_on_the_prompt_is_refused():
    model = speaking("{{ messages[0].content }}{% if messages[0].content|length < 5 %} !{% endif %} assistant :")
    model.encode([asked("say tree now")])
    with pytest.raises(CheckpointError, match="depends on the prompt"):
        model.encode([asked("tree")])


def test_a_text_that_the_template_rewrites_is_refused():
    model = speaking("{{ messages[0].content|replace('tree', 'now') }} assistant :")
    with pytest.raises(CheckpointError, match="rewrites the user's text"):
        model.encode([asked("say tree")])


@pytest.mark.parametrize(
    ("one", "other", "ending"), [("ab", "cb", "b"), ("b", "b", "b"), ("", "b", ""), ("xab", "ab", "ab"), ("a", "b", "")]
)
def test_the_common_ending(one, other, ending):
    assert common_ending(one, other) == ending


@pytest.mark.parametrize(
    ("ids", "plain", "post", "added"),
    [
        ([9, 9, 1, 2, 3], [9, 1, 2, 3], 1, 0),
        ([9, 9, 1, 2, 3, 7], [9, 1, 2, 3], 1, 1),
        ([9, 9, 1, 7, 7], [9, 1, 7], 0, 1),
        ([9, 9, 5, 2, 3, 7], [4, 2, 3], 0, 1),
        ([9, 9, 5, 6, 7], [1, 2, 3], 1, None),
    ],
)
def test_tokens_that_a_processor_puts_behind_a_prompt_are_counted(ids, plain, post, added):
    assert tokens_added(ids, plain, post) == added
