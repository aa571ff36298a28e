"""mergekit's YAML in, our recipe out."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.shards import read_json
from vlsurgery.surgery.checkpoint.text_stack import choose_text_stacks
from vlsurgery.surgery.errors import RecipeError
from vlsurgery.surgery.merge.recipe import SAFETENSORS_DTYPES, Recipe, read_yaml, unique_names
from vlsurgery.surgery.merge.recipe_keys import EVERYWHERE, tower_depths
from vlsurgery.surgery.mergekit.document import Document, Slice, parse
from vlsurgery.surgery.mergekit.methods import KINDS, PER_MODEL, TAKEN, Scalar
from vlsurgery.surgery.methods import METHODS

# A raw name with a layer: what stands before the layer's number, and the number, the first one between dots.
_LAYER: Final = re.compile(r"(.*?)\.(\d+)\.")

# A value for each model, or a single one; None for a model that has no part in a site.
Values = tuple[Scalar | None, ...]


def load_recipe(path: Path, allow_pickle: bool = False, text_stacks: Sequence[str] = ()) -> Recipe:
    """The recipe in a file: ours, or what a mergekit YAML stands for, which has `merge_method` in place of `schema`.

    allow_pickle: take pickled weights; what a recipe says of them is no leave. text_stacks: as `choose_text_stacks`
        takes them; a recipe of ours names its own.

    Raises RecipeError that names the file, the key and the fault.
    """
    data, _ = read_yaml(path)
    if "merge_method" in data and "schema" not in data:
        return read_mergekit(data, path, allow_pickle, text_stacks)
    if text_stacks:
        raise RecipeError(
            f"{path}: a recipe of ours says itself what the text stack is: leave --text-stack out, and write "
            f"text_stack: {text_stacks[0]} below its checkpoint."
        )
    recipe = Recipe.load(path)
    pickled = [role for role, ref in recipe.checkpoints.items() if ref.pickled]
    if pickled and not allow_pickle:
        raise RecipeError(
            f"{path}: checkpoints.{pickled[0]}: says that its weights are pickled, which can run code when they are "
            "loaded. Give --allow-pickle to load them as weights only, or convert them to safetensors."
        )
    return recipe


def read_mergekit(
    data: Mapping[str, Any], path: Path, allow_pickle: bool = False, text_stacks: Sequence[str] = ()
) -> Recipe:
    """The recipe that a mergekit YAML stands for: the same numbers, as far as the package's docstring says.

    data: what the file held. path: the file, for messages. Models are looked for where mergekit looks: below the
    working directory, then on the Hub. Opens them for their tensors' names; reads no weights.
    allow_pickle: take pickled weights where a model has no others.

    Raises RecipeError that names the file and the key for what can't be carried over, and CheckpointError for a model
    that can't be opened.
    """
    try:
        document = parse(data)
        opened = {model: Checkpoint.open(model, allow_pickle=allow_pickle) for model in document.models}
        choose_text_stacks(opened.values(), text_stacks)
        return _Reader(document, opened).recipe()
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error


def plain_table(values: Mapping[Site, Values]) -> dict[str, Any]:
    """Key -> values, as a recipe has them, such that each site resolves to its own.

    The commonest values stand under `everywhere`. A component of the text tower whose sites differ from them has one
    key, with a list along the layers where its numbers differ from layer to layer. Everything else has its site's key.
    """
    common = Counter(values.values()).most_common(1)[0][0]
    table: dict[str, Any] = {EVERYWHERE: common}
    columns: dict[str, list[Site]] = {}
    for site in values:
        is_layer = site.tower == "text" and site.layer is not None
        columns.setdefault(site.component if is_layer else site.key, []).append(site)
    depth = tower_depths(values).get("text")
    for key, sites in columns.items():
        rows = [values[site] for site in sorted(sites)]
        if len(set(rows)) == 1:
            found: dict[str, Any] = {key: rows[0]}
        elif len(rows) == depth and all(type(value) is float for row in rows for value in row):
            found = {key: tuple(list(numbers) for numbers in zip(*rows, strict=True))}
        else:
            found = {site.key: values[site] for site in sites}
        table |= {key: row for key, row in found.items() if row != common}
    # A component's key fits inserted layers too, so they need keys of their own beside it.
    return table | {site.key: values[site] for site in values if site.own_layer is not None and site.component in table}


@dataclass(frozen=True)
class _Reader:
    """A document and its open checkpoints, model -> checkpoint."""

    document: Document
    checkpoints: Mapping[str, Checkpoint]

    def recipe(self) -> Recipe:
        self._check_layers()
        self._check_filters()
        self._check_vocabularies()
        document, needs_base = self.document, METHODS[self.document.method].needs_base
        others = [model for model in document.models if model != document.base]
        stems = [model.split("@")[0].rstrip("/").replace("\\", "/").rpartition("/")[2] or "model" for model in others]
        names = dict(zip(others, unique_names(stems, ["base"] if document.base else []), strict=True))
        roles = {model: names.get(model, "base") for model in document.models}
        models = {roles[model]: model for model in (others if needs_base else document.models)}
        return Recipe(
            checkpoints={role: self.checkpoints[model].ref_model for model, role in roles.items()},
            like=roles[self.like],
            base="base" if needs_base else None,
            method=document.method,
            coefficients=self._coefficients(models),
            parameters=self._parameters(models),
            dtype=self._dtype(),
        )

    @property
    def like(self) -> str:
        return self.document.base or self.document.models[0]

    @cached_property
    def depths(self) -> dict[str, int]:
        """What stands before a layer's number in raw names -> how many layers there are."""
        found: dict[str, int] = {}
        for match in filter(None, map(_LAYER.match, self.checkpoints[self.like])):
            found[match[1]] = max(found.get(match[1], 0), int(match[2]) + 1)
        return found

    @cached_property
    def tensors(self) -> dict[str, tuple[Site, Slice, float]]:
        """Raw name -> its site, its slice, and where it reads gradients, from 0 to 1. Outside of layers it has the
        first slice, or behind them the last one, and the start of gradients; a single layer has their end."""
        like, slices, found = self.checkpoints[self.like], self.document.slices, {}
        for name, site in like.sites.items():
            part, t = slices[-1 if site.block in ("norm", "head") else 0], 0.0
            if match := _LAYER.match(name):
                layer = int(match[2])
                part = next(each for each in slices if each.layers is None or layer < each.layers[1])
                start, stop = part.layers or (0, self.depths[match[1]])
                t = (layer - start) / (stop - start - 1) if stop - start > 1 else 1.0
            found[name] = site, part, t
        return found

    def _look_up(self, parameter: str, name: str, model: str | None = None) -> Scalar | None:
        """A parameter's value for one tensor, of one model or of all; None where the model has no part in it."""
        _, part, t = self.tensors[name]
        own = part.scope if model is None else part.sources.get(model)
        if own is None:
            return None
        scopes = (own, part.scope, self.document.scope)
        cases = (case for scope in scopes for case in scope.settings.get(parameter, ()) if case.filter in name)
        value = next((case.at(t) for case in cases), TAKEN[self.document.method][parameter])
        if value is None:
            raise RecipeError(f"{own.where}.{parameter}: missing for tensor {name!r}.")
        return value

    def _table(self, parameter: str, models: Mapping[str, str | None]) -> dict[str, dict[str, Any]]:
        """Key -> role -> a parameter's value. models: role -> model; None looks up what is said for all models."""
        values = {
            site: tuple(self._look_up(parameter, name, model) for model in models.values())
            for name, (site, _, _) in self.tensors.items()
        }
        return {
            key: {role: value for role, value in zip(models, row, strict=True) if value is not None}
            for key, row in plain_table(values).items()
        }

    def _coefficients(self, models: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """Where mergekit knows no weights, every model counts; slerp's only model has t."""
        if self.document.method == "slerp":
            return self._table("t", dict.fromkeys(models))
        if "weight" in TAKEN[self.document.method]:
            return self._table("weight", models)
        return {EVERYWHERE: dict.fromkeys(models, 1.0)}

    def _parameters(self, models: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """Key -> parameter -> value, for what the method takes beside weights; role -> value where models differ."""
        found: dict[str, dict[str, Any]] = {}
        method, ours = self.document.method, METHODS[self.document.method].parameters
        for parameter in TAKEN[method]:
            if parameter in ours:
                for key, row in self._table(parameter, models if parameter in PER_MODEL else {"all": None}).items():
                    one, *rest = row.values()
                    found.setdefault(key, {})[parameter] = one if all(value == one for value in rest) else row
            elif KINDS[parameter] is bool and any(self._look_up(parameter, name) for name in self.tensors):
                raise RecipeError(f"parameters.{parameter}: {method} with {parameter}: true can't be carried over.")
        return found

    def _check_filters(self) -> None:
        scopes = [self.document.scope]
        for part in self.document.slices:
            scopes += [part.scope, *part.sources.values()]
        for where, settings in scopes:
            for parameter, cases in settings.items():
                absent = [case.filter for case in cases if not any(case.filter in name for name in self.tensors)]
                if absent:
                    raise RecipeError(
                        f"{where}.{parameter}: filter {absent[0]!r} is in no tensor's name of {self.like}. "
                        "Remove it, or name what is there."
                    )

    def _check_layers(self) -> None:
        """Slices must be the layers of the result's model, in their order, each once."""
        slices, method, reached = self.document.slices, self.document.method, 0
        if slices[0].layers is None:
            return
        if len(self.depths) != 1:
            stacks = " and ".join(self.depths)
            raise RecipeError(f"slices: {self.like} has layers in {stacks}; give `models` with filters.")
        for part in slices:
            start, stop = part.layers or (0, 0)
            if start != reached or stop <= reached:
                raise RecipeError(
                    f"{part.where}: layers [{start}, {stop}] where {reached} comes next; slices that reorder, repeat "
                    "or leave out layers can't be carried over."
                )
            reached = stop
        (layers,) = self.depths.values()
        if reached != layers:
            raise RecipeError(f"{slices[-1].where}: ends at layer {reached} of {layers}; all layers must be there.")
        if "weight" not in TAKEN[method] and any(part.sources.keys() != slices[0].sources.keys() for part in slices):
            raise RecipeError(f"slices: {method} needs the same models in every slice.")

    def _check_vocabularies(self) -> None:
        """A tokenizer that is asked for reorders embeddings, unless all models have the same vocabulary."""
        if not self.document.tokenizer:
            return
        own = _vocabulary(self.checkpoints[self.like])
        for model, checkpoint in self.checkpoints.items():
            if _vocabulary(checkpoint) != own:
                raise RecipeError(
                    f"tokenizer_source: the vocabulary of {model} is not that of {self.like}, so that embeddings would "
                    "be put in another order; that can't be carried over."
                )

    def _dtype(self) -> Any:
        """What the result is stored in: where the document is silent, what the models' dtypes have in common."""
        if self.document.dtype is not None:
            return self.document.dtype
        wanted, changed = {}, []
        for name, tensor in self.checkpoints[self.like].items():
            stored = {checkpoint[name].dtype_name for checkpoint in self.checkpoints.values() if name in checkpoint}
            promoted = "float64" if "float64" in stored else "float32"
            wanted[name] = tensor.dtype_name if len(stored) == 1 else promoted
            if wanted[name] != tensor.dtype_name:
                changed.append(name)
        if not changed:
            return "as like"
        if len(set(wanted.values())) > 1:
            raise RecipeError(f"dtype: missing; the models store {changed[0]!r} as different dtypes, so say which.")
        if wanted[changed[0]] not in SAFETENSORS_DTYPES:
            raise RecipeError(f"dtype: models in {wanted[changed[0]]} can't be carried over. Give out_dtype.")
        return wanted[changed[0]]


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
    return found | {token["content"]: token["id"] for token in data.get("added_tokens", [])}
