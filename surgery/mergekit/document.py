"""A mergekit YAML as it stands: which models, which layers, which settings. Looks at no checkpoint."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from vlsurgery.surgery.errors import RecipeError
from vlsurgery.surgery.merge.recipe import SAFETENSORS_DTYPES
from vlsurgery.surgery.mergekit.methods import PER_MODEL, TAKEN
from vlsurgery.surgery.mergekit.settings import Scope, check_keys, parse_settings
from vlsurgery.surgery.methods import METHODS
from vlsurgery.surgery.runtime.excerpts import excerpt

_KEYS: Final = ("models", "slices", "merge_method", "base_model", "parameters", "dtype", "out_dtype",
                "tokenizer_source", "tokenizer")  # fmt: skip
# Keys of mergekit's that can't be carried over, and what to do instead.
_REFUSED: Final = {
    "modules": "parts of a model can't be merged by different orders. Give `models`, with filters for the parts.",
    "chat_template": "the result has that of its base model. Remove it, and change the template afterwards.",
}


class Slice(NamedTuple):
    """A stretch of layers, from and to, or the whole model without. sources: model -> its settings in the slice."""

    where: str
    layers: Sequence[int] | None
    sources: Mapping[str, Scope]
    scope: Scope


class Document(NamedTuple):
    """models: every model, in the order that the file names them, as `Checkpoint.open` takes them. dtype: what the
    result is stored in; None where the file leaves it to the models. tokenizer: whether the file asks for one."""

    method: str
    base: str | None
    models: Sequence[str]
    slices: Sequence[Slice]
    scope: Scope
    dtype: str | None
    tokenizer: bool


def parse(data: Mapping[str, Any]) -> Document:
    """Read what a YAML file held. Raises RecipeError that names the key: an unknown one, one that can't be carried
    over, one that is missing, or a value that is none."""
    for key in data:
        if key not in _KEYS:
            fault = _REFUSED.get(key, "no such key in mergekit's files. Remove it.")
            raise RecipeError(f"{key}: {fault}")
    method = str(data.get("merge_method"))
    if method not in TAKEN:
        raise RecipeError(
            f"merge_method: {excerpt(method)} is not among the methods of both tools ({', '.join(TAKEN)})."
        )
    if ("models" in data) == ("slices" in data):
        raise RecipeError("models, slices: give one of them.")
    base = None if data.get("base_model") is None else _reference(data["base_model"], "base_model")
    if base is None and METHODS[method].needs_base:
        raise RecipeError(f"base_model: missing; {method} takes deltas from it.")
    if "models" in data:
        slices = [_slice(data["models"], "models", "models", base, method, Scope("models.parameters"))]
    else:
        slices = [_layers(entry, where, base, method) for where, entry in _entries(data["slices"], "slices")]
    models = list(dict.fromkeys([*(model for part in slices for model in part.sources), *([base] if base else [])]))
    scope = parse_settings(data, "", method, TAKEN[method])
    return Document(method, base, models, slices, scope, _dtype(data), _asks_for_tokenizer(data, base or models[0]))


def _layers(entry: Any, where: str, base: str | None, method: str) -> Slice:
    """An entry of `slices`."""
    check_keys(entry, where, ("sources", "base_model", "parameters"))
    if entry.get("base_model") is not None and _reference(entry["base_model"], f"{where}.base_model") != base:
        raise RecipeError(f"{where}.base_model: all slices share one base here, {base or 'which is not given'}.")
    scope = parse_settings(entry, f"{where}.", method, TAKEN[method])
    return _slice(entry.get("sources"), where, f"{where}.sources", base, method, scope)


def _slice(data: Any, where: str, place: str, base: str | None, method: str, scope: Scope) -> Slice:
    """A slice of the models in a list: each once, as many as the method takes, the same layers of each. To `models`,
    which knows no layers, mergekit adds the base where it is not among them."""
    rule, whole = METHODS[method], where == "models"
    sources: dict[str, Scope] = {}
    layers = None
    for at, entry in _entries(data, place):
        check_keys(entry, at, ("model", *(() if whole else ("layer_range",)), "parameters"))
        model = _reference(entry.get("model"), f"{at}.model")
        if model in sources:
            raise RecipeError(f"{where}: {model} is named twice.")
        found = None if whole else _range(entry.get("layer_range"), f"{at}.layer_range")
        layers = layers or found
        if found != layers:
            raise RecipeError(
                f"{at}.layer_range: layers {found} are put together with {layers} of {next(iter(sources))}; only the "
                "same layers of all models can be merged."
            )
        allowed = () if rule.needs_base and model == base else (name for name in TAKEN[method] if name in PER_MODEL)
        sources[model] = parse_settings(entry, f"{at}.", method, allowed)
    if base is not None and whole:
        sources.setdefault(base, Scope("base_model.parameters"))
    if rule.needs_base and base not in sources:
        raise RecipeError(f"{where}: base_model {base} is not among the sources; {method} needs its layers too.")
    count, (fewest, most) = len(sources) - rule.needs_base, rule.models
    if not fewest <= count <= (most or count):
        wanted = f"{fewest}" if fewest == most else f"{fewest} or more"
        beside = " beside its base" if rule.needs_base else ""
        raise RecipeError(f"{where}: {method} takes {wanted} models{beside}, found {count}.")
    return Slice(where, layers, sources, scope)


def _range(data: Any, where: str) -> list[int]:
    if not isinstance(data, list) or len(data) != 2 or not all(type(number) is int for number in data):
        raise RecipeError(f"{where}: expected [first, behind the last], found {excerpt(data)}.")
    return data


def _dtype(data: Mapping[str, Any]) -> str | None:
    """What the result is stored in. mergekit computes in `dtype` and stores in `out_dtype`; we compute in float32."""
    names = {key: str(data[key]).removeprefix("torch.") for key in ("out_dtype", "dtype") if data.get(key) is not None}
    for key, name in names.items():
        if name not in SAFETENSORS_DTYPES:
            raise RecipeError(f"{key}: {excerpt(data[key])} is none of {', '.join(SAFETENSORS_DTYPES)}.")
    return next(iter(names.values()), None)


def _asks_for_tokenizer(data: Mapping[str, Any], own: str) -> bool:
    """Whether a tokenizer is asked for. Raises RecipeError for any but that of the result's own model."""
    where, source, tokenizer = "tokenizer_source", data.get("tokenizer_source"), data.get("tokenizer")
    if source is not None and tokenizer is not None:
        raise RecipeError("tokenizer_source, tokenizer: give one of them.")
    if tokenizer is not None:
        check_keys(tokenizer, "tokenizer", ("source", "tokens", "pad_to_multiple_of"))
        for key in ("tokens", "pad_to_multiple_of"):
            if tokenizer.get(key):
                raise RecipeError(f"tokenizer.{key}: can't be carried over; embeddings stay where they are.")
        where, source = "tokenizer.source", tokenizer.get("source", "union")
    if source not in (None, "base") and _reference(source, where) != own:
        raise RecipeError(
            f"{where}: {excerpt(source)} can't be carried over; the result has the tokenizer of {own}. Remove "
            "it, or say base."
        )
    return source is not None


def _reference(data: Any, where: str) -> str:
    """A model: a directory, a name on the Hub, either with `@revision` or `+adapter`, as text or as a mapping."""
    if not isinstance(data, Mapping):
        return _path(data, where)
    parts = check_keys(data, where, ("model", "lora"))
    model = _path(parts.get("model"), f"{where}.model")
    return model if parts.get("lora") is None else f"{model}+{_path(parts['lora'], f'{where}.lora')}"


def _path(data: Any, where: str) -> str:
    if isinstance(data, Mapping):
        check_keys(data, where, ("path", "revision"), "no such key")
        revision = data.get("revision")
        data = data.get("path") if revision is None else f"{data.get('path')}@{revision}"
    if not isinstance(data, str) or not data:
        raise RecipeError(f"{where}: expected a directory or a name on the Hub, found {excerpt(data)}.")
    return data


def _entries(data: Any, where: str) -> list[tuple[str, Any]]:
    """The entries of a list, each behind its place in the file."""
    if not isinstance(data, list) or not data:
        raise RecipeError(f"{where}: expected a list of one or more, found {excerpt(data)}.")
    return [(f"{where}[{number}]", entry) for number, entry in enumerate(data)]
