import shutil
from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer, normalizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedTokenizerFast

from vlsurgery.probes.evaluation.generate import complete
from vlsurgery.probes.models import ChatModel, load
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.specimens.miniature import chat
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import CheckpointError


@pytest.fixture(scope="module")
def base(trio):
    return load(trio.checkpoints["base"])


@pytest.fixture(scope="module")
def adapted(trio):
    return load(trio.checkpoints["adapted"])


def test_a_rendered_prompt_has_one_start_token_and_ends_where_the_answer_begins(adapted, asked):
    for item in adapted.encode(asked):
        assert (item.ids == adapted.tokenizer.bos_token_id).sum() == 1
        tail = adapted.tokenizer.decode(item.ids[-item.post :])
        assert tail.split() == ["<|end|>", "<|assistant|>"]
        last = adapted.tokenizer.decode(item.ids[-item.post - 1])
        assert last == item.prompt.text.split()[-1]


def test_a_start_token_that_the_template_leaves_out_is_added_as_transformers_adds_it(adapted, asked):
    """LLaVA-1.5's template writes none; its tokenizer does."""
    processor = chat.processor()
    core = processor.tokenizer.backend_tokenizer
    core.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", processor.tokenizer.bos_token_id)]
    )
    processor.chat_template = processor.chat_template.replace("{{ bos_token }}", "")
    bare = replace(adapted, tokenizer=processor.tokenizer, processor=processor)
    for prompt in (asked[0], asked[-1]):
        content = [{"type": "text", "text": prompt.text}]
        if prompt.image is not None:
            content.insert(0, {"type": "image", "image": prompt.image})
        expected = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True
        )["input_ids"]
        (found,) = bare.encode([prompt])
        assert found.ids.tolist() == torch.tensor(expected).flatten().tolist()
        assert (found.ids == processor.tokenizer.bos_token_id).sum() == 1
        assert found.post == 2


def test_the_last_instruction_token_is_found_where_words_and_spaces_are_one_token():
    """A tokenizer of Llama-2's kind writes the space before a word into the word's token, and one before the text."""
    core = Tokenizer(BPE(unk_token="<unk>"))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    texts = ["[INST] how do i make a cake [/INST]", "[INST] where is the key [/INST]"]
    core.train_from_iterator(texts * 20, BpeTrainer(vocab_size=60, special_tokens=["<unk>", "<s>", "</s>"]))
    template = "{{ bos_token }}[INST] {{ messages[0]['content'] }} [/INST]"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>", chat_template=template
    )
    model = ChatModel(torch.nn.Identity(), tokenizer, None, [])
    for text in ("how do i make a cake", "where is the key"):
        (found,) = model.encode([Prompt("p", "r", "harmful", text, "fit")])
        pieces = tokenizer.convert_ids_to_tokens(found.ids.tolist())
        tail, before = "".join(pieces[-found.post :]), "".join(pieces[: -found.post])
        assert tail.replace("\u2581", " ").strip() == "[/INST]"
        assert before.replace("\u2581", " ").rstrip().endswith(text)


def test_base_and_adapted_read_the_same_words(base, adapted, asked):
    texts = [prompt for prompt in asked if prompt.modality == "text"]
    for one, other in zip(base.encode(texts), adapted.encode(texts), strict=True):
        assert one.ids.tolist() == other.ids.tolist()
        assert one.post == other.post


def test_what_does_not_see_is_not_shown_pictures(base, adapted, asked):
    assert all(prompt.modality == "text" for prompt in base.answerable(asked))
    assert adapted.answerable(asked) == asked
    with pytest.raises(ValueError, match="does not see"):
        base.encode([asked[-1]])


def test_blocks_are_the_text_stack(base, adapted):
    assert len(base.blocks) == len(adapted.blocks) == 3
    assert all("LlamaDecoderLayer" in type(block).__name__ for block in [*base.blocks, *adapted.blocks])


@pytest.mark.parametrize("pad", ["left", "right"])
def test_every_prompt_is_in_one_batch_whole_and_padded_on_the_side_asked_for(adapted, asked, pad):
    encoded = adapted.encode(asked)
    seen = []
    for batch in adapted.batches(encoded, size=7, pad=pad):
        for row, at in enumerate(batch.index):
            seen.append(at)
            mask = batch.inputs["attention_mask"][row].bool()
            assert batch.inputs["input_ids"][row][mask].tolist() == encoded[at].ids.tolist()
            assert mask[-1 if pad == "left" else 0]
    assert sorted(seen) == list(range(len(asked)))


def test_completions_in_company_are_completions_alone_and_transformers_own(trio, asked, adapted, base):
    together = complete(adapted, asked, "asking", tokens=8, size=16)
    assert together == [complete(adapted, [prompt], "asking", tokens=8)[0] for prompt in asked]
    prompt = asked[0]
    plain = AutoModelForCausalLM.from_pretrained(trio.base)
    rendered = base.tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt.text}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    out = plain.generate(**rendered, do_sample=False, max_new_tokens=8)
    expected = base.tokenizer.decode(out[0, rendered["input_ids"].shape[1] :], skip_special_tokens=True)
    assert complete(base, [prompt], "asking", tokens=8)[0].text == expected.strip()


def test_logits_of_a_picture_prompt_are_transformers_own(trio, asked, adapted):
    prompt = asked[-1]
    plain = AutoModelForImageTextToText.from_pretrained(trio.adapted)
    content = [{"type": "image", "image": prompt.image}, {"type": "text", "text": prompt.text}]
    inputs = adapted.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    (batch,) = adapted.batches(adapted.encode([prompt]))
    assert batch.inputs["input_ids"].tolist() == inputs["input_ids"].tolist()
    with torch.no_grad():
        torch.testing.assert_close(adapted.model(**batch.inputs).logits, plain(**inputs).logits)


def test_missing_weights_are_named(trio, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(trio.base, tmp_path / "damaged")
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"model\.layers\.1\.mlp\.up_proj"):
        load(Checkpoint.open(folder))


def test_a_model_at_a_url_is_not_run(trio, upload):
    with pytest.raises(CheckpointError, match=r"^memory://\S+: this runs models, and needs them in directories"):
        load(Checkpoint.open(upload(trio.base)))


def test_what_transformers_cannot_load_is_a_checkpoint_error(trio, tmp_path):
    folder = shutil.copytree(trio.base, tmp_path / "unknown")
    (folder / "config.json").write_text('{"model_type": "no_such_model"}')
    with pytest.raises(CheckpointError, match="can't load it"):
        load(Checkpoint.open(folder))


def test_an_adapter_is_in_the_live_model_as_it_is_in_the_folded_tensors(trio, tmp_path):
    from peft import LoraConfig, get_peft_model

    model = AutoModelForCausalLM.from_pretrained(trio.base)
    torch.manual_seed(3)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    checkpoint = Checkpoint.open(f"{trio.base}+{tmp_path / 'adapter'}")
    live = load(checkpoint).model.state_dict()
    plain = load(Checkpoint.open(trio.base)).model.state_dict()
    for name, tensor in checkpoint.items():
        torch.testing.assert_close(tensor.load(), live[name], rtol=0, atol=1e-6)
        moved = "q_proj" in name or "down_proj" in name
        assert moved != torch.equal(live[name], plain[name])
