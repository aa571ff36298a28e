"""Python that a checkpoint brings along: its config files name it in `auto_map`."""

from pathlib import Path

from vlsurgery.surgery.runtime.bounded_json import read_json_file

CONFIG_FILES = (
    "config.json",
    "tokenizer_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)


def remote_code_files(directory: Path) -> list[str]:
    """The config files of a checkpoint that name Python of its own; without any that can't be read."""
    return [name for name in CONFIG_FILES if _names_code(directory / name)]


def _names_code(path: Path) -> bool:
    try:
        content = read_json_file(path)
    except (OSError, ValueError):
        return False  # transformers has said so, or will
    return isinstance(content, dict) and bool(content.get("auto_map"))
