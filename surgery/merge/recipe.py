"""A recipe: a complete order for one merge, as a person reads and edits it."""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain, count
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import Field, Strict, ValidationError, field_validator, model_validator

from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import RecipeError
from vlsurgery.surgery.merge.coefficients import Coefficients
from vlsurgery.surgery.merge.parameters import Parameters
from vlsurgery.surgery.methods import METHODS, Method
from vlsurgery.surgery.results import CheckpointRef, Frozen, first_fault
from vlsurgery.surgery.runtime.atomic_file import write_text
from vlsurgery.surgery.runtime.bounded_yaml import MAX_BYTES, MAX_NODES, load_yaml, num_nodes
from vlsurgery.surgery.runtime.excerpts import excerpt
from vlsurgery.surgery.runtime.regular_file import read_regular
from vlsurgery.surgery.runtime.visible import visible

SCHEMA: Final = "vlsurgery/recipe/1"
SAFETENSORS_DTYPES: Final = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}

Number = Annotated[float, Strict()]
NumberOrList = Number | list[Number]
ParameterValue = Annotated[bool, Strict()] | NumberOrList

_WHY: Final = "# why:"
# Text that YAML takes as it is: the keys of sites, of which there can be 100,000.
_DOTTED: Final = re.compile(r"[a-z_]\w*(?:\.\w+)+", re.ASCII)


class Recipe(Frozen):
    """Which checkpoints are merged, how, how much of each goes where, and why.

    checkpoints: role -> path, and the identity that its files had; contents (name -> SHA-256 of every file of weights)
        where they were taken. A merge refuses files that changed since. The paths may be edited: identity and contents
        tell whether what is there is the same checkpoint.
    like: the role whose tensors, config, tokenizer and processor the result has.
    base: the role that deltas are taken from, for methods that take them; blend takes them from `like`.
    method: a name in METHODS. coefficients: key -> {role: coefficient}, how much of each model goes in; `Coefficients`
        says which key wins. parameters: key -> {parameter: value}, the method's other settings; `Parameters` says how.
    dtype: what floating-point tensors are stored as.
    seed: of random methods, which draw by seed and site.
    why: key -> the reason for its coefficients; a comment in the file, read back from there.
    """

    schema_: Literal["vlsurgery/recipe/1"] = Field(alias="schema", default=SCHEMA)
    checkpoints: dict[str, CheckpointRef]
    like: str = "adapted"
    base: str | None = None
    method: str = "blend"
    coefficients: dict[str, dict[str, NumberOrList]]
    parameters: dict[str, dict[str, ParameterValue | dict[str, ParameterValue]]] = Field(default={})
    dtype: Literal["as like", "float32", "bfloat16", "float16"] = "as like"
    seed: int = 0
    why: dict[str, str] = Field(default={}, exclude=True)

    @field_validator("coefficients", "parameters", mode="before")
    @classmethod
    def _keys_as_text(cls, table: Any) -> Any:
        """The table with text as keys: YAML reads the key `3`, a layer, as a number."""
        if not isinstance(table, dict):
            return table
        named = {str(key): row for key, row in table.items()}
        if len(named) != len(table):
            twice, _ = Counter(map(str, table)).most_common(1)[0]
            raise RecipeError(f"key {excerpt(twice)} occurs twice, as text and as a number; keep one of them.")
        return named

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.method not in METHODS:
            raise RecipeError(f"method: there is no {self.method!r}; known are {', '.join(METHODS)}.")
        for name in ("like", "base"):
            role = getattr(self, name)
            if role is not None and role not in self.checkpoints:
                raise RecipeError(f"{name}: {role!r} is none of the checkpoints ({', '.join(self.checkpoints)}).")
        if self.base is not None and not self.merge_method.needs_base:
            raise RecipeError(f"base: {self.method} takes no deltas, so it has no base; leave the line out.")
        if self.base is None and self.merge_method.needs_base and self.method != "blend":
            raise RecipeError(f"base: {self.method} takes deltas from a base; say which of the checkpoints it is.")
        self._check_models()
        for key, row in self.resolved_coefficients.items():
            for role, coefficient in row.items():
                numbers = coefficient if isinstance(coefficient, Sequence) else [coefficient]
                if self.merge_method.coefficient.whole and not {0, 1}.issuperset(numbers):
                    raise RecipeError(
                        f"coefficients.{key}: {role} is {coefficient}, and {self.method} knows only 0 and 1."
                    )
                if coefficient and role not in self.models:
                    raise RecipeError(
                        f"coefficients.{key}: {role!r} has a coefficient but is none of the checkpoints to merge in "
                        f"({', '.join(self.models) or 'there are none'})."
                    )
        self.resolved_parameters  # noqa: B018  (checks every parameter)
        return self

    def _check_models(self) -> None:
        fewest, most = self.merge_method.models
        count = len(self.models)
        if self.merge_method.named_inputs and set(self.models) != set(self.merge_method.named_inputs):
            raise RecipeError(
                f"checkpoints: {self.method} needs {', '.join(self.merge_method.named_inputs)} beside the base, "
                f"by these names; found {', '.join(self.models) or 'none'}."
            )
        if self.method != "blend" and not fewest <= count <= (most or count):
            wanted = f"{fewest} or more" if most is None else str(most)
            beside = " beside the base" if self.merge_method.needs_base else ""
            raise RecipeError(f"checkpoints: {self.method} merges {wanted} models{beside}, and there are {count}.")

    @property
    def merge_method(self) -> Method:
        """The method itself."""
        return METHODS[self.method]

    @property
    def origin(self) -> str | None:
        """The role that deltas are taken from; None where the method takes none."""
        return (self.base or self.like) if self.merge_method.needs_base else None

    @property
    def models(self) -> list[str]:
        """The roles that are merged in."""
        return [role for role in self.checkpoints if role != self.origin]

    @property
    def safetensors_dtype(self) -> str | None:
        """The format's own name of the dtype that the result is stored in; None where it is that of `like`."""
        return SAFETENSORS_DTYPES.get(self.dtype)

    @property
    def resolved_coefficients(self) -> Coefficients:
        return Coefficients(self.coefficients, self.merge_method.coefficient.low, self.merge_method.coefficient.high)

    @property
    def resolved_parameters(self) -> Parameters:
        return Parameters(self.parameters, self.merge_method, self.models)

    @classmethod
    def of(
        cls,
        checkpoints: Mapping[str, Checkpoint],
        coefficients: Mapping[str, Mapping[str, Any]],
        why: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> Self:
        """The recipe that merges open checkpoints, with the default method unless `fields` say otherwise."""
        refs = {role: checkpoint.ref_model for role, checkpoint in checkpoints.items()}
        table = {key: dict(row) for key, row in coefficients.items()}
        return cls(checkpoints=refs, coefficients=table, why=dict(why or {}), **fields)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a recipe and check it, before any tensor is read.

        Raises RecipeError that names the file, the key and the fault.
        """
        data, why = read_yaml(path)
        if "why" in data:
            raise RecipeError(f"{path}: why: no such key; a reason is a comment behind its coefficients, `# why: ...`.")
        if "schema" not in data:
            raise RecipeError(f"{path}: schema: missing; a recipe starts with `schema: {SCHEMA}`.")
        try:
            recipe = cls.model_validate(data, by_name=False)
        except ValidationError as error:
            found = excerpt(error.errors(include_url=False)[0]["input"])
            raise RecipeError(f"{path}: {first_fault(error)} (found {found}).") from error
        except RecipeError as error:
            raise RecipeError(f"{path}: {error}") from error
        return recipe.model_copy(update={"why": {key: why[key] for key in recipe.coefficients if key in why}})

    def save(self, path: Path) -> None:
        write_text(path, self.text())

    def text(self) -> str:
        """The recipe as YAML. `load` gives back an equal recipe: floats to the last bit, reasons included.

        Raises RecipeError for one that is too long to be read back.
        """
        _check_length(num_nodes(self.model_dump()), "values and keys", MAX_NODES)
        parents = [line for role, ref in self.checkpoints.items() for line in _parent_lines(role, ref)]
        rows = [self._coefficient_line(key, row) for key, row in self.coefficients.items()]
        none = "" if rows else " {}"
        lines = [
            "# A complete order for one merge. Run it with: vlsurgery merge --recipe FILE -o OUT",
            f"schema: {self.schema_}",
            "checkpoints:",
            *parents,
            f"like: {_plain(self.like)}  # whose tensors, config, tokenizer and processor the result has",
            *([f"base: {_plain(self.base)}  # what deltas are taken from"] if self.base is not None else []),
            f"method: {_plain(self.method)}  # {self.merge_method.formula}",
            f"coefficients:{none}  # the most specific key wins: site, block, component, layer, default, everywhere",
            *rows,
            *self._parameter_lines(),
            f"dtype: {self.dtype}  # what floating-point tensors are stored as",
            f"seed: {self.seed}  # what random methods draw by",
        ]
        text = "\n".join(lines) + "\n"
        _check_length(len(text.encode()), "bytes", MAX_BYTES)
        return text

    def _parameter_lines(self) -> list[str]:
        """The parameters that the recipe sets, below the meaning and default of each that the method has."""
        if not self.merge_method.parameters:
            return []
        known = [
            f"  # {name}: {parameter.meaning}; {_plain(parameter.default)} where no key names it"
            for name, parameter in self.merge_method.parameters.items()
        ]
        stated = [f"  {_plain(key)}: {_plain(dict(values))}" for key, values in self.parameters.items()]
        none = "" if stated else " {}"
        return [f"parameters:{none}  # each has the value of the most specific key that names it", *known, *stated]

    def _coefficient_line(self, key: str, row: Mapping[str, NumberOrList]) -> str:
        values = ", ".join(f"{_plain(role)}: {_plain(_floats(value))}" for role, value in row.items())
        why = f"  # why: {visible(' '.join(self.why[key].split()))}" if key in self.why else ""
        return f"  {_plain(key)}: {{{values}}}{why}"


def _parent_lines(role: str, ref: CheckpointRef) -> list[str]:
    """A checkpoint in the recipe: one line, and with contents a line more per file."""
    stack = [] if ref.text_stack is None else [f"text_stack: {_plain(ref.text_stack)}"]
    if ref.contents is None:
        facts = [f"path: {_plain(ref.path)}", f"identity: {_plain(ref.identity)}", *stack]
        return [f"  {_plain(role)}: {{{', '.join(facts)}}}"]
    return [
        f"  {_plain(role)}:",
        f"    path: {_plain(ref.path)}",
        f"    identity: {_plain(ref.identity)}",
        *(f"    {line}" for line in stack),
        "    contents:  # the SHA-256 of every file of weights, which a merge compares before it writes",
        *(f"      {_plain(name)}: {_plain(digest)}" for name, digest in sorted(ref.contents.items())),
    ]


def _check_length(found: int, unit: str, most: int) -> None:
    if found > most:
        raise RecipeError(
            f"recipe: {found} {unit}, and at most {most} are read back. Name blocks (3.mlp), components (mlp.gate) or "
            "layers in place of sites."
        )


def unique_names(names: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """The names as roles, no two alike and none of those `taken`: the second `model` is `model-2`."""
    used = list(taken)
    first = len(used)
    for name in names:
        numbered = (f"{name}-{number}" for number in count(2))
        used.append(next(role for role in chain([name], numbered) if role not in used))
    return used[first:]


def read_yaml(path: Path) -> tuple[dict[Any, Any], dict[str, str]]:
    """The mapping in a recipe's file, and the reasons behind its coefficients, by key. Raises RecipeError that names
    the file and the fault: not a regular file, too large, not YAML."""
    try:
        text = read_regular(path, MAX_BYTES).decode("utf-8")
    except (OSError, ValueError) as error:  # of values: text that is not UTF-8, a path that is none
        fault = error.strerror if isinstance(error, OSError) else error
        raise RecipeError(f"{path}: can't be read as a recipe ({fault}).") from error
    try:
        data, node = load_yaml(text)
    except ValueError as error:
        raise RecipeError(f"{path}: not valid YAML: {error}.") from error
    if not isinstance(data, dict) or not isinstance(node, yaml.MappingNode):
        raise RecipeError(f"{path}: a recipe is a mapping that starts with `schema: {SCHEMA}`.")
    return data, _reasons(text, node)


def _floats(value: NumberOrList) -> NumberOrList:
    return [float(number) for number in value] if isinstance(value, list) else float(value)


def _plain(value: Any) -> str:
    """A value on one line as YAML spells it, quoted only where it must be; control and direction characters escaped."""
    if isinstance(value, str):
        return value if _DOTTED.fullmatch(value) else _plain_text(value)
    return _spelt(value)


@lru_cache(1 << 12)
def _plain_text(value: str) -> str:
    return _spelt(value)


class _OneLine(yaml.SafeDumper):
    """Spells line ends as escapes; YAML's own way to quote them takes several lines, which are no key."""


def _text_on_one_line(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if "\n" in text else None)


_OneLine.add_representer(str, _text_on_one_line)


def _spelt(value: Any) -> str:
    def spelt(as_it_is: bool) -> str:
        return yaml.dump(
            [value],
            None,
            _OneLine,
            default_flow_style=True,
            width=float("inf"),
            allow_unicode=as_it_is,
            sort_keys=False,
        )

    text = spelt(True)
    return (text if text == visible(text) else spelt(False)).strip()[1:-1]


def _reasons(text: str, document: yaml.MappingNode) -> dict[str, str]:
    """The `# why:` comments behind coefficients, each on the line where a row in braces ends, by key."""
    found, ends = {}, [*(match.start() for match in re.finditer("\n", text)), len(text)]
    for name, table in document.value:
        if name.value != "coefficients" or not isinstance(table, yaml.MappingNode):
            continue
        for key, row in table.value:
            if not isinstance(row, yaml.MappingNode) or not row.flow_style or not isinstance(key, yaml.ScalarNode):
                continue
            end = row.end_mark.index
            behind = text[end : ends[bisect_left(ends, end)]].strip()
            if behind.startswith(_WHY):
                found[key.value] = behind.removeprefix(_WHY).strip()
    return found
