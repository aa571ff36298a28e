"""A recipe: a complete order for one merge, as a person reads and edits it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import Field, Strict, ValidationError, field_validator, model_validator

from surgery.checkpoint import Checkpoint
from surgery.coefficients import Coefficients
from surgery.errors import RecipeError
from surgery.methods import METHODS
from surgery.results import CheckpointRef, Frozen, write_text

SCHEMA: Final = "vlsurgery/recipe/1"
Share = Annotated[float, Strict()]

_WHY: Final = re.compile(r"^  (\S.*?): \{[^}]*\}  # why: (.*)$", re.MULTILINE)


class Recipe(Frozen):
    """Which checkpoints are merged, how, how much of each goes where, and why.

    checkpoints: role -> path and the identity that its files had; a merge refuses files that changed since.
    like: the role whose tensors, config, tokenizer and processor the result has.
    coefficients: key -> {role: share}; `Coefficients` says which key wins.
    why: key -> the reason for its coefficients; a comment in the file, read back from there.
    """

    schema_: Literal["vlsurgery/recipe/1"] = Field(alias="schema", default=SCHEMA)
    checkpoints: dict[str, CheckpointRef]
    like: str = "adapted"
    method: str = "blend"
    coefficients: dict[str, dict[str, Share]]
    dtype: Literal["as like"] = "as like"
    seed: int = 0
    why: dict[str, str] = Field(default={}, exclude=True)

    @field_validator("coefficients", mode="before")
    @classmethod
    def _layers_are_words(cls, table: Any) -> Any:
        """YAML reads the key `3` as a number."""
        return {str(key): shares for key, shares in table.items()} if isinstance(table, dict) else table

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.method not in METHODS:
            raise RecipeError(f"method: there is no {self.method!r}; known are {', '.join(METHODS)}.")
        if self.like not in self.checkpoints:
            raise RecipeError(f"like: {self.like!r} is none of the checkpoints ({', '.join(self.checkpoints)}).")
        others = set(self.checkpoints) - {self.like}
        for key, shares in self.table.items():
            for role, share in shares.items():
                if share and role not in others:
                    raise RecipeError(
                        f"coefficients.{key}: {role!r} has a share but is none of the checkpoints to merge in "
                        f"({', '.join(sorted(others)) or 'there are none'})."
                    )
        return self

    @property
    def table(self) -> Coefficients:
        return Coefficients(self.coefficients)

    @classmethod
    def of(
        cls, checkpoints: Mapping[str, Checkpoint], coefficients: Coefficients, why: Mapping[str, str] | None = None
    ) -> Self:
        """The recipe that merges open checkpoints with the default method."""
        return cls(
            checkpoints={role: checkpoint.ref_model for role, checkpoint in checkpoints.items()},
            coefficients=coefficients.plain(),
            why=dict(why or {}),
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a recipe and check it, before any tensor is read.

        Raises RecipeError that names the file, the key and the fault.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path}: can't be read as a recipe ({error}).") from error
        try:
            data = yaml.load(text, _StrictLoader)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            fault = " ".join(str(error).split())
            raise RecipeError(f"{path}: not valid YAML: {fault}.") from error
        if not isinstance(data, dict):
            raise RecipeError(f"{path}: a recipe is a mapping that starts with `schema: {SCHEMA}`.")
        if "why" in data:
            raise RecipeError(f"{path}: why: no such key; a reason is a comment behind its coefficients, `# why: ...`.")
        if "schema" not in data:
            raise RecipeError(f"{path}: schema: missing; a recipe starts with `schema: {SCHEMA}`.")
        try:
            recipe = cls.model_validate(data, by_name=False)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise RecipeError(f"{path}: {key}: {first['msg']} (found {first['input']!r:.80}).") from error
        except RecipeError as error:
            raise RecipeError(f"{path}: {error}") from error
        return recipe.model_copy(update={"why": _reasons(text, recipe.coefficients)})

    def save(self, path: Path) -> None:
        write_text(path, self.text())

    def text(self) -> str:
        """The recipe as YAML. `load` gives back an equal recipe: floats to the last bit, reasons included."""
        parents = [
            f"  {_plain(role)}: {{path: {_plain(ref.path)}, identity: {_plain(ref.identity)}}}"
            for role, ref in self.checkpoints.items()
        ]
        shares = [self._coefficient_line(key, value) for key, value in self.coefficients.items()]
        none = "" if shares else " {}"
        lines = [
            "# A complete order for one merge. Run it with: vlsurgery merge --recipe FILE -o OUT",
            f"schema: {self.schema_}",
            "checkpoints:",
            *parents,
            f"like: {_plain(self.like)}  # whose tensors, config, tokenizer and processor the result has",
            f"method: {_plain(self.method)}  # {METHODS[self.method].formula}",
            f"coefficients:{none}  # the most specific key wins: site, block, component, layer, default",
            *shares,
            f"dtype: {self.dtype}",
            f"seed: {self.seed}",
        ]
        return "\n".join(lines) + "\n"

    def _coefficient_line(self, key: str, shares: Mapping[str, float]) -> str:
        values = ", ".join(f"{_plain(role)}: {_plain(float(share))}" for role, share in shares.items())
        why = f"  # why: {' '.join(self.why[key].split())}" if key in self.why else ""
        return f"  {_plain(key)}: {{{values}}}{why}"


class _StrictLoader(yaml.SafeLoader):
    """YAML without its traps: a key that is there twice is an error, not a last-one-wins."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) != len(node.value):
            raise yaml.constructor.ConstructorError(None, None, "a key occurs twice", node.start_mark)
        return mapping


def _plain(value: str | float) -> str:
    """A scalar as YAML spells it, quoted only where it must be."""
    return yaml.safe_dump([value], default_flow_style=True, width=float("inf"), allow_unicode=True).strip()[1:-1]


def _reasons(text: str, keys: Mapping[str, object]) -> dict[str, str]:
    """The `# why:` comments behind coefficients, by key."""
    found = {str(yaml.safe_load(key)): why.strip() for key, why in _WHY.findall(text)}
    return {key: why for key, why in found.items() if key in keys}
