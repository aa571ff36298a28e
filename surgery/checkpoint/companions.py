"""Files beside the weights which a merge takes along: a list of what is allowed, and nothing else.

Allowed are config and generation config, tokenizers of every kind, processors, chat templates, licences, and the Python
modules that a config declares as the model's own (`auto_map`), with those that they import from their own directory:
without them such a checkpoint can't be loaded, and copying runs nothing. Everything else stays: optimizer states, other
formats' weights, parts of downloads, logs, caches, scripts, adapters.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from vlsurgery.surgery.checkpoint.pointers import refuse_pointer
from vlsurgery.surgery.checkpoint.shards import leads_to_a_blob, read_json
from vlsurgery.surgery.errors import CheckpointError

MODEL: Final = ("config.json", "generation_config.json")
TOKENIZER: Final = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model",
    "tokenizer.model.v[0-9]", "tokenizer.model.v[0-9][0-9]", "tokenizer.model.v[0-9]*m[0-9]", "vocab.json", "vocab.txt",
    "vocab.bpe", "vocab.model", "vocab-*.json", "*_vocab.json", "merges.txt", "bpe.codes", "dict.txt",
    "normalizer.json", "emoji.json", "byte_maps.json", "word_shape.json", "word_pronunciation.json", "tekken.json",
    "spiece.model", "spm*.model", "sentencepiece*.model", "tiktoken.model", "*.tiktoken", "*.spm", "*.tokenizer",
)  # fmt: skip
TEMPLATES: Final = ("chat_template.json", "*.jinja", "additional_chat_templates/*.jinja")
PROCESSOR: Final = (
    "preprocessor_config.json", "processor_config.json", "image_processor_config.json",
    "video_preprocessor_config.json", "audio_tokenizer_config.json", "feature_extractor_config.json",
)  # fmt: skip
LICENCES: Final = re.compile(r"(licen[cs]es?|notice|copying|copyright|use_policy)([-_. ][\w. -]*)?", re.IGNORECASE)
LICENCE_ENDINGS: Final = ("", ".txt", ".md", ".rst", ".html", ".pdf")
# Words of a file that opens something, whatever else it is called.
SECRETS: Final = re.compile(r"key|secret|token|password|credential|private", re.IGNORECASE)

# Files about a tokenizer that don't hold its vocabulary.
TOKENIZER_SETTINGS: Final = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
ALLOWED: Final = (*MODEL, *TOKENIZER, *TEMPLATES, *PROCESSOR)
# Files whose `auto_map` names Python modules of the directory.
DECLARING: Final = ("config.json", "tokenizer_config.json", *PROCESSOR)
# Bytes of a Python module that is read for what it imports.
MAX_MODULE_BYTES: Final = 1 << 22

_RELATIVE_IMPORT: Final = re.compile(r"^[ \t]*from[ \t]+\.(\w[\w.]*)[ \t]+import\b", re.MULTILINE)
_FROM_HERE: Final = re.compile(r"^[ \t]*from[ \t]+\.[ \t]+import[ \t]+\(?([\w, \t]+)", re.MULTILINE)


def companions(folder: Path, fetch: Callable[[str], bool] | None = None) -> dict[str, Path]:
    """Relative name -> path of every allowed file of a checkpoint's directory, sorted by name.

    fetch: puts a file of that name into the directory where the checkpoint has one, and says whether it has; of
    directories that are copies of what lies elsewhere.

    Raises CheckpointError for one that is a link to nothing, a link out of the checkpoint, not a plain file, or a Git
    LFS pointer.
    """
    names = [name for name in _names(folder) if is_allowed(name)]
    found = {name: _checked(folder, name) for name in names}
    return dict(sorted((found | _modules(folder, found, fetch)).items()))


def left_behind(held: Iterable[str], taken: Iterable[str], weights: Iterable[str]) -> list[str]:
    """What a directory holds beside its weights and the files that are taken along, by name; a folder of which
    nothing is taken stands for all that is in it. Hidden files and folders are left out.

    held: names of all that is in it, folders with a slash behind.
    """
    homes = {name.split("/")[0] for name in (*taken, *weights)}
    return sorted(name for name in held if not name.startswith(".") and name.rstrip("/") not in homes)


def is_allowed(name: str) -> bool:
    """Whether a file of that relative name is taken along, whatever is in it."""
    licence = LICENCES.fullmatch(name) is not None and os.path.splitext(name)[1].lower() in LICENCE_ENDINGS
    return (licence and not SECRETS.search(name)) or _is_one_of(name, ALLOWED)


def with_adapter(base: Mapping[str, Path], adapter: Path) -> dict[str, Path]:
    """The companions of a base with an adapter: the adapter was trained under its own tokenizer, chat template and
    processor, so they replace the base's where it has them; a tokenizer or a template does so as a whole.

    base: the base's companions. adapter: the adapter's directory. Raises CheckpointError as `companions` does.
    """
    own = {
        name: file
        for name, file in companions(adapter).items()
        if _is_one_of(name, (*TOKENIZER, *TEMPLATES, *PROCESSOR))
    }
    replaced: list[str] = []
    if any(_is_one_of(name, TOKENIZER) and name not in TOKENIZER_SETTINGS for name in own):
        replaced += TOKENIZER
    if any(_is_one_of(name, TEMPLATES) for name in own) or _states_template(own.get("tokenizer_config.json")):
        replaced += TEMPLATES
    return dict(sorted(({name: file for name, file in base.items() if not _is_one_of(name, replaced)} | own).items()))


def _states_template(file: Path | None) -> bool:
    return file is not None and bool(read_json(file).get("chat_template"))


def _is_one_of(name: str, patterns: Iterable[str]) -> bool:
    return any(name.count("/") == pattern.count("/") and fnmatchcase(name, pattern) for pattern in patterns)


def _names(folder: Path) -> Iterator[str]:
    """The files of a directory and of its folder of templates."""
    for place in (folder, folder / "additional_chat_templates"):
        if place.is_dir():
            for entry in place.iterdir():
                if entry.is_symlink() or not entry.is_dir():
                    yield entry.relative_to(folder).as_posix()


def _checked(folder: Path, name: str) -> Path:
    """The path of a companion, which is a plain file of the checkpoint, or a link into a Hub cache's blobs; no pointer
    to what was not downloaded."""
    file = folder / name
    if not file.is_file():
        fault = "not a plain file. Remove it." if file.exists() else "a link to nothing. Download it again."
        raise CheckpointError(f"{file}: {fault}")
    real, home = Path(os.path.realpath(file)), Path(os.path.realpath(folder))
    if not real.is_relative_to(home) and not leads_to_a_blob(file, folder):
        raise CheckpointError(f"{file}: a link out of the checkpoint, to {real}. Put the file itself there.")
    refuse_pointer(file)
    return file


def _modules(folder: Path, found: Mapping[str, Path], fetch: Callable[[str], bool] | None) -> dict[str, Path]:
    """The Python modules that a config declares as the model's own, and those that they import beside them."""
    waiting = [
        name for file in DECLARING if file in found for name in _declared(read_json(found[file]).get("auto_map"))
    ]
    modules: dict[str, Path] = {}
    while waiting:
        name = waiting.pop().replace(".", "/") + ".py"
        # What is declared and absent, or lies in another repository, is not ours to copy.
        if name not in modules and (os.path.lexists(folder / name) or (fetch is not None and fetch(name))):
            modules[name] = _checked(folder, name)
            waiting += _imported(modules[name], name)
    return modules


def _declared(auto_map: Any) -> Iterator[str]:
    """The modules of "module.Class", or of a list of these, in an `auto_map`; those of other repositories are left
    out."""
    for value in auto_map.values() if isinstance(auto_map, dict) else ():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, str) and re.fullmatch(r"\w+(\.\w+)+", each):
                yield each.rpartition(".")[0]


def _imported(file: Path, name: str) -> Iterator[str]:
    """The modules that a module imports relative to itself, as paths with dots from the checkpoint's directory."""
    with file.open("rb") as opened:
        text = opened.read(MAX_MODULE_BYTES).decode("utf-8", "replace")
    inside = name.rpartition("/")[0].replace("/", ".")
    here = [each.split()[0] for names in _FROM_HERE.findall(text) for each in names.split(",") if each.split()]
    for each in [*_RELATIVE_IMPORT.findall(text), *here]:
        if re.fullmatch(r"\w+(\.\w+)*", each):
            yield f"{inside}.{each}" if inside else each
