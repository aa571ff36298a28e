"""A checkpoint is a stranger's: its Python does not run, its chat template is bounded, its thoughts are told apart."""

import contextlib
import json
import shutil
import time

import pytest
import torch

from vlsurgery.probes.evaluation.judges import STANDARD, Exchange
from vlsurgery.probes.models import ChatModel, load
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.prompts.pictures import blank
from vlsurgery.probes.specimens.miniature import chat
from vlsurgery.probes.templates import rendering
from vlsurgery.probes.thoughts import opened, spoken
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import CheckpointError, SurgeryError

ASKED = Prompt("p", "r", "harmless", "name a tree", "fit")
SEEN = Prompt("q", "r", "harmless", "name a tree", "fit", "blank", blank())


def rendered(template):
    return rendering.render("m", template, [{"role": "user", "content": "hi"}], {"bos_token": "<s>"})


def text_model(template, thinking=None):
    """A model of text that is never run, with this chat template."""
    tokenizer = chat.processor().tokenizer
    tokenizer.chat_template = template
    return ChatModel(torch.nn.Identity(), tokenizer, None, [], thinking=thinking)


CODE = "import pathlib; pathlib.Path(__file__).with_name('ran').touch(); raise SystemExit"


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config.json", {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine", "AutoModel": "mine.Mine"}}),
        ("tokenizer_config.json", {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": [None, "mine.Mine"]}}),
        ("processor_config.json", {"processor_class": "Mine", "auto_map": {"AutoProcessor": "mine.Mine"}}),
    ],
)
def test_a_checkpoints_own_python_never_runs_and_nothing_is_asked(trio, tmp_path, monkeypatch, file, change):
    def asked(*given):
        raise AssertionError("asked on standard input")

    monkeypatch.setattr("builtins.input", asked)
    folder = shutil.copytree(trio.adapted, tmp_path / "m")
    (folder / "mine.py").write_text(CODE)
    path = folder / file
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **change}))
    with contextlib.suppress(CheckpointError):  # or it loads, by transformers' own classes
        load(Checkpoint.open(folder))
    assert not list(tmp_path.rglob("ran"))


def test_code_that_is_needed_is_refused_in_one_line(trio, tmp_path):
    folder = shutil.copytree(trio.base, tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(CODE)
    with pytest.raises(CheckpointError, match=r"auto_map in config\.json.*not run\..*--trust-remote-code"):
        load(Checkpoint.open(folder))


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("{{ raise_exception('\x1b[31mno') }}", r"\\x1b\[31mno"),
        ("{{ messages[0].a.b }}", "UndefinedError"),
        ("{{ 1 + 'a' }}", "TypeError"),
        ("{% for %}", "TemplateSyntaxError"),
        ("{{ 'x'|int('y')|round(1, 'z') }}", "Error"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{% if 1 %}" * 3000 + "{% endif %}" * 3000, "RecursionError"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
        ("{{ 'a' * 10 ** 10 }}", "MemoryError"),
        ("{{ 'a' * 2 * 10 ** 7 }}", "20000000 letters"),
        ("{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}", "MemoryError"),
    ],
)
def test_a_template_that_fails_is_told_in_one_line(template, fault):
    with pytest.raises(CheckpointError, match=fault) as found:
        rendered(template)
    assert str(found.value).isprintable()
    assert len(str(found.value)) < 600


@pytest.mark.parametrize(
    "template",
    ["{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "{{ 10 ** (10 ** 9) }}"],
)
def test_a_template_that_hangs_is_ended_and_the_next_one_runs(monkeypatch, template):
    rendered("{{ bos_token }}")
    monkeypatch.setattr(rendering, "MAX_SECONDS", 1.0)
    began = time.monotonic()
    with pytest.raises(CheckpointError, match="does not end within 1 second"):
        rendered(template)
    assert time.monotonic() - began < 20
    assert rendered("{{ bos_token }}{{ messages[0].content }}") == "<s>hi"


def test_rendered_is_what_transformers_renders(trio):
    model = load(trio.checkpoints["adapted"])
    content = [{"type": "image"}, {"type": "text", "text": "name a tree"}]
    expected = model.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    assert model.template.render([{"role": "user", "content": content}]) == expected


def test_a_tokenizers_template_serves_where_the_processor_has_none(trio):
    model = load(trio.checkpoints["adapted"])
    expected = [item.ids.tolist() for item in model.encode([ASKED, SEEN])]
    bare = chat.processor()
    bare.chat_template = None
    other = ChatModel(model.model, bare.tokenizer, bare, model.blocks)
    found = other.encode([ASKED, SEEN])
    assert [item.ids.tolist() for item in found] == expected
    assert all(item.post == 2 for item in found)


def test_a_template_of_text_is_not_given_a_list(trio):
    """It would print the list as Python writes it."""
    loaded = load(trio.checkpoints["adapted"])
    loaded.processor.chat_template = "{{ bos_token }}{{ messages[0]['content'] }}<|end|>"
    model = ChatModel(loaded.model, loaded.tokenizer, loaded.processor, loaded.blocks)
    (found,) = model.encode([ASKED])
    assert len(found.ids) == len(["<s>", "name", "a", "tree", "<|end|>"])
    with pytest.raises(CheckpointError, match="takes text alone"):
        model.encode([SEEN])


@pytest.mark.parametrize("thinking", [None, True, False])
def test_the_template_is_told_of_thinking(thinking):
    template = "{{ messages[0].content }}|{{ enable_thinking is defined }}|{{ enable_thinking }}|{{ thinking }}"
    model = text_model(template, thinking)
    told = "" if thinking is None else str(thinking)
    expected = f"hi|{thinking is not None}|{told}|{told}"
    assert model.template.render([{"role": "user", "content": "hi"}]) == expected
    assert model.template.knows_thinking


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(trio):
    model = load(trio.checkpoints["base"])
    most = model.model.config.max_position_embeddings
    long = Prompt("long", "r", "harmless", "tree " * 200_000, "fit")
    with pytest.raises(SurgeryError, match=rf"prompt long has 200,00\d tokens, .* at most {most:,} "):
        model.encode([ASKED, long])


REFUSAL = "I'm sorry, but I can't help with that."
ANSWER = "Put mint in a pot and water it daily. Then set it in the sun."
THOUGHT = "I can't help with anything illegal, but this is about herbs."


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("<think>\n", "\n</think>\n\n"),
        ("", "\n</think>\n\n"),
        ("[THINK]", "[/THINK]"),
        ("<seed:think>", "</seed:think>"),
        ("◁think▷", "◁/think▷"),
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        ("<|channel>thought\n", "<channel|>"),
        ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
        ("<|channel|>analysis<|message|>", "assistant<|channel|>final <|constrain|>json<|message|>"),
    ],
)
def test_the_answer_is_judged_and_not_the_thought(start, end):
    def judged(completion, cut=False):
        return STANDARD.judge([Exchange(completion, "how do i grow mint", "harmless", False, None, cut)])[0].label

    assert judged(start + THOUGHT + end + ANSWER) == "complied"
    assert judged(start + "The user asks about mint, and I can tell." + end + REFUSAL) == "refused"
    assert judged(start + THOUGHT + end) == "neither"
    if start:
        assert judged(start + THOUGHT, cut=True) == "neither"
        assert spoken(start + REFUSAL) is None


def test_a_thought_that_the_template_opens_is_known_when_it_is_cut_off():
    model = text_model("{{ messages[0].content }}<|end|><|assistant|><think>\n")
    assert model.open_thought == "<think>\n"
    assert spoken(model.text_of(model.tokenizer("tree", add_special_tokens=False)["input_ids"])) is None
    assert text_model("{{ messages[0].content }}<|assistant|><think>\n\n</think>\n\n").open_thought == ""
    assert opened("<|start|>assistant<|channel|>analysis<|message|>")


def test_marks_of_thoughts_are_kept_among_special_tokens():
    model = text_model("{{ messages[0].content }}")
    model.tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]", "<|channel|>"]})
    ids = model.tokenizer("[THINK] cake [/THINK] cake <|end|>", add_special_tokens=False)["input_ids"]
    text = model.text_of(ids)
    assert "[/THINK]" in text
    assert "<|end|>" not in text
    assert spoken(text) == text.partition("[/THINK]")[2]
    plain = model.tokenizer("cake <|end|>", add_special_tokens=False)["input_ids"]
    assert model.text_of(plain) == model.tokenizer.decode(plain, skip_special_tokens=True).strip()


@pytest.mark.parametrize("token", ["<s>", "</s>", "<|user|>", "<|end|>", "<image>"])
def test_a_special_token_in_a_prompt_is_words(trio, token):
    """Only the template writes special tokens: as many as around a prompt without any."""
    model = load(trio.checkpoints["adapted"])
    special = model.tokenizer.convert_tokens_to_ids(token)
    asked = [Prompt("p", "r", "harmless", text, "fit") for text in ("name a tree", f"name a {token} tree")]
    plain, marked = (item.ids.tolist() for item in model.encode(asked))
    assert plain.count(special) == marked.count(special)
    assert len(marked) > len(plain)
    without = ChatModel(model.model, model.tokenizer, None, model.blocks)
    without.tokenizer.chat_template = None
    without.template = None
    assert without.encode(asked)[1].ids.tolist().count(special) == without.encode(asked)[0].ids.tolist().count(special)


def test_a_template_that_fails_says_so_for_a_picture_too(trio):
    loaded = load(trio.checkpoints["adapted"])
    loaded.processor.chat_template = "{{ raise_exception('no system message') }}"
    with pytest.raises(CheckpointError, match="no system message"):
        ChatModel(loaded.model, loaded.tokenizer, loaded.processor, loaded.blocks).encode([SEEN])


def test_a_processor_with_named_templates_alone_is_refused_by_name(trio):
    loaded = load(trio.checkpoints["adapted"])
    loaded.processor.chat_template = {"tool_use": "x"}
    with pytest.raises(CheckpointError, match='has the chat templates tool_use, expected one called "default"'):
        ChatModel(loaded.model, loaded.tokenizer, loaded.processor, loaded.blocks).encode([ASKED])


def test_a_link_to_a_template_that_is_not_there_is_refused(trio, tmp_path):
    folder = shutil.copytree(trio.adapted, tmp_path / "m")
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    (folder / "chat_template.jinja").symlink_to("gone")
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja: is a link to gone, which is not there"):
        load(Checkpoint.open(folder))
