"""A mergekit YAML as it stands: which models, which layers, which settings. Looks at no checkpoint."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from vlsurgery.surgery.errors import RecipeError
from vlsurgery.surgery.mergekit.methods import NEUTRAL, TAKEN, Taken
from vlsurgery.surgery.mergekit.settings import Settings, parse_settings

_KEYS: Final = frozenset(
    {"models", "slices", "merge_method", "base_model", "parameters"}
    | {"dtype", "out_dtype", "tokenizer_source", "tokenizer"}
)
_DTYPES: Final = ("float32", "bfloat16", "float16")

# What mergekit can and we can't, by key, and what to do instead.
_REFUSED: Final[Mapping[str, str]] = {
    "modules": "parts of a model can't be merged by different orders. Give `models`, with filters for the parts",
    "chat_template": "the result has that of its base model. Remove it, and change the template afterwards",
}


@dataclass(frozen=True)
class SliceModel:
    """A model in a slice. model: as `Checkpoint.open` takes it. where: its place in the file. layers: from, to."""

    model: str
    where: str
    settings: Settings
    layers: tuple[int, int] | None = None


@dataclass(frozen=True)
class Slice:
    """A stretch of layers, or the whole model where its sources name no layers."""

    sources: tuple[SliceModel, ...]
    where: str
    settings: Settings

    @property
    def layers(self) -> tuple[int, int] | None:
        return self.sources[0].layers

    def source(self, model: str) -> SliceModel | None:
        return next((source for source in self.sources if source.model == model), None)


@dataclass(frozen=True)
class Document:
    """dtype: what the result is stored in; None where the file leaves it to the models. tokenizer: the model that it
    is asked for from, if the file does ask."""

    method: str
    base: str | None
    slices: tuple[Slice, ...]
    settings: Settings
    dtype: str | None
    tokenizer: str | None

    @property
    def taken(self) -> Taken:
        return TAKEN[self.method]

    @property
    def models(self) -> list[str]:
        """Every model, in the order that the file names them."""
        named = (source.model for part in self.slices for source in part.sources)
        return list(dict.fromkeys([*named, *([] if self.base is None else [self.base])]))


def parse(data: Mapping[str, Any]) -> Document:
    """Read what a YAML file held. Raises RecipeError that names the key: an unknown one, one that can't be carried
    over, one that is missing, or a value that is none."""
    for key in data:
        if key in _REFUSED:
            raise RecipeError(f"{key}: {_REFUSED[key]}.")
        if key not in _KEYS:
            raise RecipeError(f"{key}: no such key in mergekit's files. Remove it.")
    method = str(data.get("merge_method"))
    if method not in TAKEN:
        raise RecipeError(f"merge_method: {method!r} is not among the methods of both tools ({', '.join(TAKEN)}).")
    if ("models" in data) == ("slices" in data):
        raise RecipeError("models, slices: give one of them.")
    taken = TAKEN[method]
    base = None if data.get("base_model") is None else reference(data["base_model"], "base_model")
    if base is None and taken.base:
        raise RecipeError(f"base_model: missing; {method} takes deltas from it.")
    slices = _models(data, base, method) if "models" in data else _slices(data, base, method)
    for part in slices:
        _check_sources(part, base, method)
    document = Document(
        method, base, slices, _settings(data, "parameters", method, taken.shared, taken.each), _dtype(data), None
    )
    return Document(**{**vars(document), "tokenizer": _tokenizer(data, document)})


def reference(data: Any, where: str) -> str:
    """A model: a directory, a name on the Hub, either with `@revision` or `+adapter`, as text or as a mapping."""
    if isinstance(data, str) and data:
        return data
    if not isinstance(data, Mapping):
        raise RecipeError(f"{where}: expected a model's directory or name, found {data!r:.60}.")
    for key in data:
        if key not in ("model", "lora"):
            raise RecipeError(f"{where}.{key}: can't be carried over; a model is `model` and perhaps `lora`.")
    parts = [_path(data.get("model"), f"{where}.model")]
    if data.get("lora") is not None:
        parts.append(_path(data["lora"], f"{where}.lora"))
    return "+".join(parts)


def _path(data: Any, where: str) -> str:
    if isinstance(data, Mapping):
        for key in data:
            if key not in ("path", "revision"):
                raise RecipeError(f"{where}.{key}: no such key; there are `path` and `revision`.")
        revision = data.get("revision")
        data = data.get("path") if revision is None else f"{data.get('path')}@{revision}"
    if not isinstance(data, str) or not data:
        raise RecipeError(f"{where}: expected a directory or a name on the Hub, found {data!r:.60}.")
    return data


def _models(data: Mapping[str, Any], base: str | None, method: str) -> tuple[Slice, ...]:
    """`models:`, to which mergekit adds the base where it is not among them."""
    sources = [
        _source(entry, f"models[{place}]", base, method, ("model", "parameters"))
        for place, entry in enumerate(_list(data["models"], "models"))
    ]
    if base is not None and base not in {source.model for source in sources}:
        sources.append(SliceModel(base, "base_model", {}))
    return (Slice(tuple(sources), "models", {}),)


def _slices(data: Mapping[str, Any], base: str | None, method: str) -> tuple[Slice, ...]:
    found = []
    for place, entry in enumerate(_list(data["slices"], "slices")):
        where = f"slices[{place}]"
        _check_keys(entry, where, ("sources", "base_model", "parameters"))
        if entry.get("base_model") is not None and reference(entry["base_model"], f"{where}.base_model") != base:
            raise RecipeError(f"{where}.base_model: all slices share one base here, {base or 'which is not given'}.")
        sources = tuple(
            _source(source, f"{where}.sources[{number}]", base, method, ("model", "layer_range", "parameters"))
            for number, source in enumerate(_list(entry.get("sources"), f"{where}.sources"))
        )
        settings = _settings(entry, f"{where}.parameters", method, TAKEN[method].shared, TAKEN[method].each)
        found.append(Slice(sources, where, settings))
    return tuple(found)


def _source(entry: Any, where: str, base: str | None, method: str, keys: tuple[str, ...]) -> SliceModel:
    _check_keys(entry, where, keys)
    model = reference(entry.get("model"), f"{where}.model")
    taken = TAKEN[method]
    each = {} if taken.base and model == base else taken.each
    settings = _settings(entry, f"{where}.parameters", method, each)
    layers = _range(entry.get("layer_range"), f"{where}.layer_range") if "layer_range" in keys else None
    return SliceModel(model, where, settings, layers)


def _check_sources(part: Slice, base: str | None, method: str) -> None:
    """A slice's models: each once, as many as the method takes, the base among them, the same layers of each."""
    taken = TAKEN[method]
    names = [source.model for source in part.sources]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise RecipeError(f"{part.where}: {twice} is named twice.")
    if taken.base and base not in names:
        raise RecipeError(f"{part.where}: base_model {base} is not among the sources; {method} needs its layers too.")
    fewest, most = taken.models
    others = len(names) - taken.base
    if others < fewest or (most is not None and others > most):
        wanted = f"{fewest}" if fewest == most else f"{fewest} or more"
        beside = " beside its base" if taken.base else ""
        raise RecipeError(f"{part.where}: {method} takes {wanted} models{beside}, found {others}.")
    for source in part.sources:
        if source.layers != part.layers:
            raise RecipeError(
                f"{source.where}.layer_range: layers {_span(source.layers)} are put together with {_span(part.layers)} "
                f"of {names[0]}; only the same layers of all models can be merged."
            )


def _span(layers: tuple[int, int] | None) -> str:
    return "none" if layers is None else f"[{layers[0]}, {layers[1]}]"


def _settings(data: Mapping[str, Any], where: str, method: str, *allowed: Iterable[str]) -> Settings:
    """The settings under `parameters`. Those that change no number are read, so that faults in them are found."""
    found = data.get("parameters")
    names = [*NEUTRAL, *(name for group in allowed for name in group)]
    parsed = {} if found is None else parse_settings(found, where, names, method)
    return {name: setting for name, setting in parsed.items() if name not in NEUTRAL}


def _range(data: Any, where: str) -> tuple[int, int]:
    if not isinstance(data, list | tuple) or len(data) != 2 or not all(type(number) is int for number in data):
        raise RecipeError(f"{where}: expected [first, behind the last], found {data!r:.60}.")
    return data[0], data[1]


def _dtype(data: Mapping[str, Any]) -> str | None:
    """What the result is stored in. mergekit computes in `dtype` and stores in `out_dtype`; we always compute in
    float32."""
    for key in ("dtype", "out_dtype"):
        name = data.get(key)
        if name is not None and str(name).removeprefix("torch.") not in _DTYPES:
            raise RecipeError(f"{key}: {name!r} is none of {', '.join(_DTYPES)}.")
    name = data.get("out_dtype") or data.get("dtype")
    return None if name is None else str(name).removeprefix("torch.")


def _tokenizer(data: Mapping[str, Any], document: Document) -> str | None:
    """The model whose tokenizer is asked for. Raises RecipeError for anything but that of the result's own model."""
    if data.get("tokenizer_source") is not None and data.get("tokenizer") is not None:
        raise RecipeError("tokenizer_source, tokenizer: give one of them.")
    where, source = "tokenizer_source", data.get("tokenizer_source")
    if data.get("tokenizer") is not None:
        _check_keys(data["tokenizer"], "tokenizer", ("source", "tokens", "pad_to_multiple_of"))
        for key in ("tokens", "pad_to_multiple_of"):
            if data["tokenizer"].get(key):
                raise RecipeError(f"tokenizer.{key}: can't be carried over; embeddings stay where they are.")
        where, source = "tokenizer.source", data["tokenizer"].get("source", "union")
    if source is None:
        return None
    own = document.models[0] if document.base is None else document.base
    model = own if source == "base" else source if source == "union" else reference(source, where)
    if model != own:
        raise RecipeError(
            f"{where}: {source!r} can't be carried over; the result has the tokenizer of {own}. Remove it, or say base."
        )
    return model


def _list(data: Any, where: str) -> list[Any]:
    if not isinstance(data, list) or not data:
        raise RecipeError(f"{where}: expected a list of one or more, found {data!r:.60}.")
    return data


def _check_keys(data: Any, where: str, keys: Iterable[str]) -> None:
    known = list(keys)
    if not isinstance(data, Mapping):
        raise RecipeError(f"{where}: expected a mapping with {', '.join(known)}, found {data!r:.60}.")
    for key in data:
        if key not in known:
            raise RecipeError(f"{where}.{key}: can't be carried over; known here are {', '.join(known)}.")
