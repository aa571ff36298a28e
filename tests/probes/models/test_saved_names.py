"""Every tensor of a file is found in the running model, renamed, turned or joined as transformers loads it."""

from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from vlsurgery.probes.models.saved_names import saved_views

SMALL = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "pad_token_id": 1,
}  # fmt: skip
RENAMED = transformers.GraniteMoeConfig(**SMALL, num_local_experts=2, num_experts_per_tok=1)
JOINED = transformers.OlmoHybridConfig(
    **SMALL, layer_types=["linear_attention", "full_attention"], linear_num_key_heads=2, linear_num_value_heads=2,
    linear_key_head_dim=4, linear_value_head_dim=8,
)  # fmt: skip
TURNED = transformers.Ernie4_5_VLMoeConfig(
    text_config={**SMALL, "moe_intermediate_size": [8, 6], "moe_num_experts": 2, "moe_k": 1,
                 "moe_num_shared_experts": 1,
                 "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}},
    vision_config={"depth": 1, "hidden_size": 8, "intermediate_size": 8, "num_heads": 2, "out_hidden_size": 16},
)  # fmt: skip


# What joins several parameters is in none of them whole: 4 experts of 3 matrices, and their routers' corrections.
@pytest.mark.parametrize(
    ("config", "unseen"), [(RENAMED, 0), (JOINED, 0), (TURNED, 13), (transformers.LlamaConfig(**SMALL), 0)]
)
def test_a_view_holds_the_bytes_of_the_file(config, unseen: int, tmp_path: Path) -> None:
    made = transformers.AutoModelForImageTextToText if config is TURNED else transformers.AutoModelForCausalLM
    made.from_config(config).save_pretrained(tmp_path)
    model = made.from_pretrained(tmp_path, dtype=torch.float32)
    stored, views = model.state_dict(), saved_views(model)
    file = load_file(tmp_path / "model.safetensors")
    for name, view in views.items():
        if name in file:
            whole = stored[view.name]
            assert torch.equal(view.view(whole.flatten()[slice(*_span(view, whole))], tuple(whole.shape)), file[name])
    assert len(file.keys() - views.keys()) == unseen, sorted(file.keys() - views.keys())


def _span(view, whole) -> tuple[int, int]:
    first, size = view.span(tuple(whole.shape))
    return first, first + size
