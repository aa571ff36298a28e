"""What lies beside an adapter is measured as it is merged."""

from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import save_file

from vlsurgery.probes.models.loading import load
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import CheckpointError


def tokenizer(*more: str, template: str) -> object:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<s>", "</s>", "<pad>", "a", "b"]
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    whole = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    whole.add_special_tokens({"additional_special_tokens": list(more)})
    whole.chat_template = template
    return whole


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A base and a random adapter, each with a tokenizer and a template of its own."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=12, tie_word_embeddings=False))
    model.save_pretrained(tmp_path / "base")
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    tokenizer(template="old").save_pretrained(tmp_path / "base")  # type: ignore[attr-defined]
    tokenizer("<tool>", template="new").save_pretrained(tmp_path / "adapter")  # type: ignore[attr-defined]
    return tmp_path / "base", tmp_path / "adapter"


def test_a_model_with_an_adapter_speaks_under_the_adapters_tokenizer_and_template(pair: tuple[Path, Path]) -> None:
    base, adapter = pair
    assert load(Checkpoint.open(base)).tokenizer.chat_template == "old"
    chat = load(Checkpoint.open(f"{base}+{adapter}"))
    assert chat.tokenizer.chat_template == "new"
    assert "<tool>" in chat.tokenizer.get_vocab()


def test_a_model_that_runs_has_the_weights_that_a_merge_would_have(pair: tuple[Path, Path]) -> None:
    base, adapter = pair
    save_file({"base_model.model.model.norm.weight": torch.full((16,), 3.0)}, adapter / "trained.safetensors")
    folded = Checkpoint.open(f"{base}+{adapter}")
    held = load(folded).model.state_dict()
    for name, tensor in folded.items():
        assert torch.allclose(held[name], tensor.load(), atol=1e-6), name
    assert torch.equal(held["model.norm.weight"], torch.full((16,), 3.0))


def test_trained_weights_of_which_the_model_has_no_parameter_are_named(pair: tuple[Path, Path]) -> None:
    base, adapter = pair
    save_file({"mm_projector.0.weight": torch.ones(2)}, adapter / "trained.safetensors")
    with pytest.raises(CheckpointError, match=r"trained\.safetensors: mm_projector\.0\.weight: no tensor of the base"):
        Checkpoint.open(f"{base}+{adapter}")
