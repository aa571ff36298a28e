"""Processors are the published ones, whether torchvision is there, is missing, or belongs to another torch."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from vlsurgery.probes.models.processors import load_processor
from vlsurgery.surgery.errors import CheckpointError


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The processor's files of a Qwen2.5-VL, with one for films, as published ones have it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    folder = tmp_path_factory.mktemp("qwen")
    special = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
    words = {word: number for number, word in enumerate(["<unk>", "</s>", "a", *special])}
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    whole = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", pad_token="</s>")
    whole.add_special_tokens({"additional_special_tokens": special})
    whole.save_pretrained(folder)
    Qwen2VLImageProcessorPil(patch_size=4, merge_size=2, min_pixels=64, max_pixels=1024).save_pretrained(folder)
    (folder / "processor_config.json").write_text('{"processor_class": "Qwen2_5_VLProcessor"}')
    (folder / "video_preprocessor_config.json").write_text('{"video_processor_type": "Qwen2VLVideoProcessor"}')
    return folder


def test_a_processor_that_also_takes_films_takes_pictures_without_torchvision(qwen: Path) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    picture = Image.linear_gradient("L").convert("RGB").resize((30, 42))
    processor = load_processor(qwen, local_files_only=True)
    made = processor(text=["a <|vision_start|><|image_pad|><|vision_end|>"], images=[picture], return_tensors="pt")
    alone = Qwen2VLImageProcessorPil.from_pretrained(qwen)(images=[picture], return_tensors="pt")
    torch.testing.assert_close(made["pixel_values"], alone["pixel_values"], rtol=0, atol=0)
    placeholders = (made["input_ids"] == processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")).sum()
    assert int(placeholders) == int(made["image_grid_thw"].prod()) // 4


def test_transformers_is_as_it_was_afterwards(qwen: Path) -> None:
    from transformers import processing_utils

    before = processing_utils.ProcessorMixin.check_argument_for_proper_class
    load_processor(qwen, local_files_only=True)
    assert processing_utils.ProcessorMixin.check_argument_for_proper_class is before
    home = processing_utils.MODALITY_TO_AUTOPROCESSOR_MAPPING._MAPPING_NAMES["video_processor"]
    assert home == ("transformers.models.auto.video_processing_auto", "AutoVideoProcessor")


def test_a_processor_that_needs_torchvision_says_which_extra_brings_it(qwen: Path, tmp_path: Path) -> None:
    for file in qwen.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "processor_config.json").write_text('{"processor_class": "PixtralProcessor"}')
    with pytest.raises(CheckpointError, match=r"needs torchvision.*vlsurgery\[vision\]"):
        load_processor(tmp_path, local_files_only=True)


def test_torchvision_without_its_compiled_operators_is_imported(tmp_path: Path) -> None:
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("from torchvision import operators, transforms\n")
    (package / "transforms.py").write_text("def resize(size):\n    return size\n")
    (package / "operators.py").write_text(
        "import torch\n"
        "for name in ('nms', 'other'):\n"
        "    torch.library.register_fake(f'torchvision::{name}')(lambda any: any)\n"
    )
    tried = (
        "import sys, vlsurgery.probes; sys.path.insert(0, sys.argv[1]); import torchvision, torch; "
        "assert torchvision.transforms.resize(3) == 3; assert torch.ops.torchvision.other"
    )
    subprocess.run([sys.executable, "-c", tried, str(tmp_path)], check=True, timeout=120)
