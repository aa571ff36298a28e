"""mergekit's YAML in, our recipe out."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final, Literal

from vlsurgery.surgery.architecture.identify import identify
from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.shards import read_json
from vlsurgery.surgery.errors import RecipeError
from vlsurgery.surgery.merge.keys import EVERYWHERE
from vlsurgery.surgery.merge.recipe import Recipe, read_yaml
from vlsurgery.surgery.mergekit.document import Document, Slice, parse
from vlsurgery.surgery.mergekit.methods import OFF, Scalar
from vlsurgery.surgery.mergekit.settings import Settings, layers_of, look_up

# What stands behind the layers; all else outside of them stands in front.
_BEHIND: Final = ("norm", "head")

Dtype = Literal["as like", "float32", "bfloat16", "float16"]
# A value for each model, or a single one; None for a model that has no part in a site.
Values = tuple[Scalar | None, ...]


def load_recipe(path: Path) -> Recipe:
    """The recipe in a file: ours, or what a mergekit YAML stands for, which has `merge_method` in place of `schema`.

    Raises RecipeError that names the file, the key and the fault.
    """
    _, data = read_yaml(path)
    return read_mergekit(data, path) if "merge_method" in data and "schema" not in data else Recipe.load(path)


def read_mergekit(data: Mapping[str, Any], path: Path) -> Recipe:
    """The recipe that a mergekit YAML stands for: the same numbers, as far as the package's docstring says.

    data: what the file held. path: the file, for messages. Models are looked for where mergekit looks: below the
    working directory, then on the Hub. The result is like `base_model`, or else like the first model.

    Opens the checkpoints, for their identities and the names of their tensors; reads no weights. Raises RecipeError
    that names the file and the key for what can't be carried over, CheckpointError for a model that can't be opened.
    """
    try:
        document = parse(data)
        return _Reader(document, {model: Checkpoint.open(model) for model in document.models}).recipe()
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error


def plain_table(values: Mapping[Site, Values]) -> dict[str, Any]:
    """Key -> values, as a recipe has them, such that each site resolves to its own.

    The commonest values stand under `everywhere`. A component of the text tower whose sites differ from them has one
    key, with a list along the layers where its numbers differ from layer to layer. Everything else has its site's key.
    """
    common = Counter(values.values()).most_common(1)[0][0]
    table: dict[str, Any] = {EVERYWHERE: common}
    columns: dict[str, dict[int, Values]] = {}
    for site, value in values.items():
        if site.tower == "text" and site.layer is not None:
            columns.setdefault(site.component, {})[site.layer] = value
    depth = 1 + max((layer for column in columns.values() for layer in column), default=0)
    for component, column in columns.items():
        rows = [column[layer] for layer in sorted(column)]
        if len(set(rows)) == 1 and rows[0] != common:
            table[component] = rows[0]
        elif len(set(rows)) > 1 and len(rows) == depth and all(type(value) is float for row in rows for value in row):
            table[component] = tuple(list(numbers) for numbers in zip(*rows, strict=True))
    for site, value in values.items():
        in_layers = site.tower == "text" and site.layer is not None
        if value != common and not (in_layers and site.component in table):
            table[site.key] = value
    return table


@dataclass(frozen=True)
class _Reader:
    """A document and its open checkpoints, model -> checkpoint."""

    document: Document
    checkpoints: Mapping[str, Checkpoint]

    def recipe(self) -> Recipe:
        self._check_layers()
        self._check_filters()
        self._check_tokenizer()
        deltas = self.document.taken.base
        models = {role: model for role, model in self.roles.items() if not (deltas and role == "base")}
        table = plain_table(self._values(self._coefficient, models.values()))
        return Recipe(
            checkpoints={role: self.checkpoints[model].ref_model for role, model in self.roles.items()},
            like=next(role for role, model in self.roles.items() if model == self.like),
            base="base" if deltas else None,
            method=self.document.method,
            coefficients={
                key: {role: value for role, value in zip(models, row, strict=True) if value is not None}
                for key, row in table.items()
            },
            parameters=self._parameters(models),
            dtype=self._dtype(),
        )

    @property
    def like(self) -> str:
        return self.document.base or self.document.models[0]

    @cached_property
    def roles(self) -> dict[str, str]:
        """Role -> model: `base` for the base model, the others by the last part of their path."""
        roles: dict[str, str] = {}
        taken = {"base"} if self.document.base is not None else set()
        for model in self.document.models:
            stem = model.split("@")[0].rstrip("/").replace("\\", "/").rpartition("/")[2] or "model"
            name, number = stem, 1
            while name in taken:
                number += 1
                name = f"{stem}-{number}"
            name = "base" if model == self.document.base else name
            taken.add(name)
            roles[name] = model
        return roles

    @cached_property
    def names(self) -> dict[str, Site]:
        """The raw names that filters are held against, with their sites."""
        checkpoint = self.checkpoints[self.like]
        return identify(checkpoint.shapes, checkpoint.config)

    @cached_property
    def layers(self) -> dict[str, tuple[str, int] | None]:
        return layers_of(self.names)

    @cached_property
    def depths(self) -> dict[str, int]:
        """What stands before a layer's number -> how many layers there are."""
        found: dict[str, int] = {}
        for place in self.layers.values():
            if place is not None:
                found[place[0]] = max(found.get(place[0], 0), place[1] + 1)
        return found

    def _slice_of(self, name: str) -> Slice:
        """The slice that a tensor's settings come from: its layer's, outside of layers the first or the last."""
        place, slices = self.layers[name], self.document.slices
        if place is None:
            return slices[-1 if (self.names[name].block or "") in _BEHIND else 0]
        return next(part for part in slices if part.layers is None or place[1] < part.layers[1])

    def _gradient_place(self, name: str, part: Slice) -> float:
        """Where a gradient is read, from 0 to 1: outside of layers at its start, for a single layer at its end."""
        place = self.layers[name]
        if place is None:
            return 0.0
        start, stop = part.layers or (0, self.depths[place[0]])
        return (place[1] - start) / (stop - start - 1) if stop - start > 1 else 1.0

    def _look_up(self, parameter: str, name: str, model: str | None = None) -> Scalar | None:
        """A parameter's value for one tensor, of one model or of all; None where the model has no part in it."""
        part = self._slice_of(name)
        source = None if model is None else part.source(model)
        if model is not None and source is None:
            return None
        scopes = [*([source.settings] if source else []), part.settings, self.document.settings]
        value = look_up(parameter, scopes, name, self._gradient_place(name, part))
        default = {**self.document.taken.shared, **self.document.taken.each}[parameter]
        if value is None and default is None:
            where = part.where if source is None else source.where
            raise RecipeError(f"{where}.parameters.{parameter}: missing for tensor {name!r}.")
        return default if value is None else value

    def _values(self, value_of: Callable[[str, str], Scalar | None], models: Any) -> dict[Site, Values]:
        return {site: tuple(value_of(name, model) for model in models) for name, site in self.names.items()}

    def _coefficient(self, name: str, model: str) -> Scalar | None:
        """A model's coefficient at one tensor. Where mergekit knows no weights, every model counts."""
        if self.document.method == "slerp":
            return self._look_up("t", name)
        return self._look_up("weight", name, model) if "weight" in self.document.taken.each else 1.0

    def _parameters(self, models: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """Key -> parameter -> value, for what the method takes beside weights."""
        found: dict[str, dict[str, Any]] = {}
        taken, off = self.document.taken, OFF.get(self.document.method, frozenset())
        for parameter in taken.shared:
            values: dict[Site, Values] = {site: (self._look_up(parameter, name),) for name, site in self.names.items()}
            if parameter in off and any(any(value) for value in values.values()):
                raise RecipeError(
                    f"parameters.{parameter}: {self.document.method} with {parameter}: true can't be carried over."
                )
            if parameter not in off and parameter != "t":
                for key, (value,) in plain_table(values).items():
                    found.setdefault(key, {})[parameter] = value
        for parameter in set(taken.each) - {"weight"}:
            for key, row in plain_table(self._values(partial(self._look_up, parameter), models.values())).items():
                found.setdefault(key, {})[parameter] = _one_or_each(models, row)
        return found

    def _scopes(self) -> Iterator[tuple[str, Settings]]:
        """Every `parameters` of the document, with its place in the file."""
        yield "parameters", self.document.settings
        for part in self.document.slices:
            yield f"{part.where}.parameters", part.settings
            for source in part.sources:
                yield f"{source.where}.parameters", source.settings

    def _check_filters(self) -> None:
        for where, settings in self._scopes():
            for parameter, setting in settings.items():
                for case in setting:
                    if not any(map(case.fits, self.names)):
                        raise RecipeError(
                            f"{where}.{parameter}: filter {case.filter!r} is in no tensor's name of {self.like}. "
                            "Remove it, or name what is there."
                        )

    def _check_layers(self) -> None:
        """Slices must be the layers of the result's model, in their order, each once."""
        slices = self.document.slices
        if slices[0].layers is None:
            return
        if len(self.depths) != 1:
            stacks = " and ".join(self.depths)
            raise RecipeError(f"slices: {self.like} has layers in {stacks}; give `models` with filters.")
        (layers,) = self.depths.values()
        reached = 0
        for part in slices:
            assert part.layers is not None
            if part.layers[0] != reached or part.layers[1] <= reached:
                raise RecipeError(
                    f"{part.where}: layers [{part.layers[0]}, {part.layers[1]}] where {reached} comes next; slices "
                    "that reorder, repeat or leave out layers can't be carried over."
                )
            reached = part.layers[1]
        if reached != layers:
            raise RecipeError(f"{slices[-1].where}: ends at layer {reached} of {layers}; all layers must be there.")
        together = {frozenset(source.model for source in part.sources) for part in slices}
        if len(together) > 1 and "weight" not in self.document.taken.each:
            raise RecipeError(f"slices: {self.document.method} needs the same models in every slice.")

    def _check_tokenizer(self) -> None:
        """A tokenizer that is asked for reorders embeddings, unless all models have the same vocabulary."""
        if self.document.tokenizer is None:
            return
        own = _vocabulary(self.checkpoints[self.like])
        for model, checkpoint in self.checkpoints.items():
            if _vocabulary(checkpoint) != own:
                raise RecipeError(
                    f"tokenizer_source: the vocabulary of {model} is not that of {self.like}, so that embeddings would "
                    "be put in another order; that can't be carried over."
                )

    def _dtype(self) -> Dtype:
        """What the result is stored in: where the document is silent, what the models' dtypes have in common."""
        wanted = self.document.dtype
        if wanted is None:
            like = self.checkpoints[self.like]
            promoted = {name: self._promoted(name) for name in self.names}
            changed = {name: dtype for name, dtype in promoted.items() if dtype != like[name].dtype_name}
            if not changed:
                return "as like"
            if len(set(promoted.values())) > 1:
                name = next(iter(changed))
                raise RecipeError(f"dtype: missing; the models store {name!r} as different dtypes, so say which.")
            wanted = next(iter(changed.values()))
        if wanted not in ("float32", "bfloat16", "float16"):
            raise RecipeError(f"dtype: models in {wanted} can't be carried over. Give out_dtype.")
        return wanted  # type: ignore[return-value]

    def _promoted(self, name: str) -> str:
        """The dtype that holds a tensor's values in all models that have it."""
        found = {checkpoint[name].dtype_name for checkpoint in self.checkpoints.values() if name in checkpoint}
        return next(iter(found)) if len(found) == 1 else "float64" if "float64" in found else "float32"


def _one_or_each(models: Mapping[str, str], row: Sequence[Any]) -> Any:
    """One value where all models agree, else role -> value."""
    given = {role: value for role, value in zip(models, row, strict=True) if value is not None}
    first = next(iter(given.values()))
    return first if all(value == first for value in given.values()) else given


def _vocabulary(checkpoint: Checkpoint) -> dict[str, int]:
    """Token -> row of the embedding, added tokens included. Raises RecipeError without a vocabulary to read."""
    file = checkpoint.path / "tokenizer.json"
    if not file.is_file():
        raise RecipeError(
            f"tokenizer_source: {checkpoint.ref} has no tokenizer.json to compare with the others. Remove the line; "
            "the result then has the tokenizer of its base model, and embeddings are merged row by row."
        )
    data = read_json(file)
    model = data.get("model")
    found = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(found, list):  # Unigram: [token, score] in order.
        found = {token: row for row, (token, _) in enumerate(found)}
    if not isinstance(found, dict):
        raise RecipeError(f"{file}: has no vocabulary where tokenizer.json keeps it (model.vocab).")
    added = {str(token["content"]): int(token["id"]) for token in data.get("added_tokens", [])}
    return {str(token): int(row) for token, row in found.items()} | added
