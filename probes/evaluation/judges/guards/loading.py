"""Judges' checkpoints, opened without their weights, and their weights, loaded on demand. No remote code is run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from vlsurgery.surgery.checkpoint.hub import HubName, download
from vlsurgery.surgery.checkpoint.shards import read_json
from vlsurgery.surgery.errors import CheckpointError

Family = Literal["AutoModelForSequenceClassification", "AutoModelForCausalLM"]

_SAVE: Final = "Save the model's own tokenizer beside it (tokenizer.save_pretrained)."


@dataclass(frozen=True)
class JudgeCheckpoint:
    """A checkpoint's directory, config and tokenizer.

    ref: as the user named it. origin: the name that its config keeps of where it came from; None where it keeps none.
    """

    ref: str
    directory: Path
    config: Any
    tokenizer: Any
    origin: str | None

    @property
    def architecture(self) -> str:
        """The model class that the config names; empty where it names none."""
        return str(next(iter(getattr(self.config, "architectures", None) or ()), ""))

    def weights(self, family: Family, dtype: Any, device: str) -> Any:
        """The model in evaluation mode and without gradients.

        Raises CheckpointError where transformers can't load it, or weights are missing: a head drawn at random judges
        nothing.
        """
        import transformers
        from safetensors import SafetensorError

        try:
            model, info = getattr(transformers, family).from_pretrained(
                self.directory,
                dtype=dtype,
                trust_remote_code=False,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
            raise CheckpointError(f"judge hf:{self.ref}: transformers can't load it: {_line(error)}") from error
        if missing := sorted(info["missing_keys"]):
            raise CheckpointError(
                f"judge hf:{self.ref}: {len(missing)} weights are missing, the first is {missing[0]}; transformers "
                "would draw them at random. Use a checkpoint that was trained to classify."
            )
        return model.to(device).eval().requires_grad_(False)


def open_judge_checkpoint(ref: str) -> JudgeCheckpoint:
    """Config and tokenizer of a directory, or of a model on the Hub, which is downloaded.

    Raises CheckpointError of one line: no such model, no config, no tokenizer, remote code.
    """
    import transformers

    directory = _directory(ref)
    if not (directory / "config.json").is_file():
        raise CheckpointError(f"judge hf:{ref}: no config.json in {directory}. Give the directory of a model.")
    try:
        config = transformers.AutoConfig.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
        origin = read_json(directory / "config.json").get("_name_or_path")
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise CheckpointError(f"judge hf:{ref}: transformers can't read its config: {_line(error)}") from error
    return JudgeCheckpoint(ref, directory, config, _tokenizer(ref, directory, config), _text_or_none(origin))


def _tokenizer(ref: str, directory: Path, config: Any) -> Any:
    """The tokenizer of a directory. Where it holds none, transformers may make one that knows no word."""
    import transformers

    try:
        found = transformers.AutoTokenizer.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise CheckpointError(f"{_no_tokenizer(ref)} ({_line(error)}). {_SAVE}") from error
    words = [at for token, at in found.get_vocab().items() if token not in found.all_special_tokens]
    if not words:
        raise CheckpointError(f"{_no_tokenizer(ref)} (one was found with special tokens alone). {_SAVE}")
    rows = getattr(config.get_text_config(), "vocab_size", None)
    if rows is not None and max(words) >= rows:
        raise CheckpointError(
            f"judge hf:{ref}: its tokenizer has words up to number {max(words)}, and the model has {rows} rows. {_SAVE}"
        )
    return found


def _no_tokenizer(ref: str) -> str:
    return f"judge hf:{ref}: no tokenizer that transformers can load"


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _directory(ref: str) -> Path:
    if Path(ref).is_dir():
        return Path(ref)
    name = HubName.of(ref)
    if name is None:
        raise CheckpointError(
            f"judge hf:{ref}: no such directory, and not the name of a model on the Hub. Give hf:DIRECTORY or "
            "hf:ORG/NAME."
        )
    return download(name)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
