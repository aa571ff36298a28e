"""Writes a family's trio: a base, the model that grew from it and sees, and a tuning of that."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from families import tokens
from families.entries import DEPTH, Family, Parts, Words
from torch import Tensor, nn
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

NOISE = 0.03


Taught = Callable[[Path, bool, int], None]


def build(family: Family, root: Path, teach: Taught | None = None) -> None:
    """Write base, adapted and safety below `root`, with random weights: adapted is the base moved a little, with a
    tower of its own and more words, and safety is adapted moved a little.

    teach: called with a directory, whether its model is to refuse, and the steps of training: base and safety refuse.
    """
    torch.manual_seed(0)
    plain = tokens.tokenizer(family.style)
    seeing = tokens.tokenizer(family.style, family.added, dict(family.names))
    parts = family.parts(Words(seeing.get_vocab(), len(seeing)))
    adapted = model_of(parts.config)
    base = base_of(family, parts.config, len(plain))
    write(root / "base", base, family, plain, None)
    if teach is not None:
        teach(root / "base", True, 150)
        base = type(base).from_pretrained(root / "base")
    with torch.no_grad():
        for target, source in shared(family, adapted, base):
            rows = min(len(target), len(source)) if target.ndim else ...
            target[slice(rows) if target.ndim else ...] = moved(source[slice(rows) if target.ndim else ...])
    write(root / "adapted", adapted, family, seeing, parts)
    if teach is not None:
        teach(root / "adapted", False, 60)
        adapted = type(adapted).from_pretrained(root / "adapted")
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.copy_(moved(parameter))
    write(root / "safety", adapted, family, seeing, parts)
    if teach is not None:
        teach(root / "safety", True, 60)


def moved(weights: Tensor) -> Tensor:
    """Weights and a little noise."""
    return weights + NOISE * torch.randn_like(weights) if weights.is_floating_point() else weights


def model_of(config: Any) -> nn.Module:
    """A model that sees, of a config, with random weights in all of its parts."""
    made: Any = None
    for auto in ("AutoModelForImageTextToText", "AutoModelForMultimodalLM", "AutoModelForCausalLM"):
        try:
            made = getattr(transformers, auto).from_config(config)
            break
        except ValueError as error:
            if "Unrecognized configuration class" not in str(error):
                raise
    alive(made)
    quantiser = getattr(getattr(made, "model", None), "vqmodel", None)
    if quantiser is not None:
        _spread(quantiser)
    return made


def alive(model: nn.Module) -> nn.Module:
    """A model without parameters that are zero all over, as norms of Gemma and gates of cross-attention begin."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point() and (parameter.std() == 0 if parameter.numel() > 1 else True):
                parameter.add_(0.2 * torch.randn_like(parameter))
            if not parameter.isfinite().all():
                parameter.copy_(0.2 * torch.randn_like(parameter))
    return model.eval()


def _spread(quantiser: Any) -> None:
    """Make a codebook's entries states of a picture far from each other, so that the nearest one depends on pictures
    and hardly on rounding."""
    entries, read = quantiser.quantize.embedding.weight, []
    handle = quantiser.quantize.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    with torch.no_grad():
        quantiser.encode(torch.randn(1, 3, 64, 64), image_sizes=torch.tensor([[64, 64]]))
        states = read[0].movedim(-3, -1).flatten(0, -2)
        chosen = [0]
        while len(chosen) < len(entries):  # the one farthest from those that are there
            chosen.append(int(torch.cdist(states, states[chosen]).amin(1).argmax()))
        entries.copy_(states[chosen])
    handle.remove()


def base_of(family: Family, config: Any, rows: int) -> nn.Module:
    """The language model that a family grew from, with the vocabulary of its own tokenizer."""
    text = config.get_text_config()
    settings = {k: v for k, v in text.to_dict().items() if k not in ("model_type", "architectures", "dtype")}
    settings |= {"vocab_size": rows, **family.base}
    if "vocab_size_per_layer_input" in settings:
        settings["vocab_size_per_layer_input"] = rows
    if "cross_attention_layers" in settings:
        settings["num_hidden_layers"] = DEPTH - len(settings["cross_attention_layers"])
    kind = type(text)
    if family.parent is not None:
        kind = CONFIG_MAPPING[family.parent]
        known = set(kind().to_dict()) | set(kind.attribute_map)
        settings = {k: v for k, v in {"head_dim": 8, **settings}.items() if k in known}
    if isinstance(settings.get("rope_parameters"), dict):
        settings["rope_parameters"] = (
            {k: v for k, v in settings["rope_parameters"].items() if not k.startswith("mrope")}
            if family.parent
            else settings["rope_parameters"]
        )
    return alive(transformers.AutoModelForCausalLM.from_config(kind(**settings)))


def shared(family: Family, adapted: Any, base: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of tensors that the adapted model has from its base: (adapted's, base's), found module by module."""
    own = decoder(adapted).state_dict()
    for name, tensor in decoder(base).state_dict().items():
        yield own[family.spelling(name)], tensor
    heads = head(adapted), base.get_output_embeddings()
    if heads[0].weight.data_ptr() != embedding(adapted).data_ptr():
        yield heads[0].weight.data, heads[1].weight.data


def decoder(model: Any) -> nn.Module:
    """The text stack's own module."""
    language = getattr(model, "language_model", None)
    found = (language if language is not None and hasattr(language, "get_decoder") else model).get_decoder()
    found = getattr(found, "language_model", found)
    return found.get_decoder() if hasattr(found, "get_decoder") and found is not model else found


def head(model: Any) -> nn.Module:
    language = getattr(model, "language_model", None)
    return model.get_output_embeddings() or language.get_output_embeddings()


def embedding(model: Any) -> Tensor:
    return decoder(model).get_input_embeddings().weight.data


def write(folder: Path, model: Any, family: Family, tokenizer: Any, parts: Parts | None) -> None:
    """A checkpoint's files. parts: of the processor, where the model sees."""
    settings: Any = model.generation_config or transformers.GenerationConfig()
    settings.eos_token_id, settings.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    model.generation_config = settings
    model.save_pretrained(folder)
    if family.style is not tokens.BARE:
        tokenizer.chat_template = tokens.template(family.style, family.picture if parts else "")
    tokenizer.save_pretrained(folder)
    if parts is None or parts.processor is None:
        return
    images = {"image_processor_type": parts.images, **parts.sizes, "processor_class": parts.processor}
    (folder / "preprocessor_config.json").write_text(json.dumps({**images, **(parts.sounds or {})}))
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": parts.processor, **parts.options}))
    if parts.films:
        films = {"video_processor_type": parts.films, "processor_class": parts.processor, **parts.frames}
        (folder / "video_preprocessor_config.json").write_text(json.dumps(films))


@contextmanager
def quiet() -> Iterator[None]:
    """While open, transformers prints nothing."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)
