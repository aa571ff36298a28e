"""Choosing a direction among scored candidates, by the published rules."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from operator import index
from typing import Any, Final

from vlsurgery.probes.results import NOT_A_NUMBER, DirectionChoice, DirectionScores
from vlsurgery.surgery.errors import SurgeryError

MAX_KL: Final = 0.1  # nats
MIN_STEERING: Final = 0.0  # nats: a refusal as likely as not
LATE_SHARE: Final = 0.2  # of the layers, at the end: what is there is too near to the tokens that it writes
_SCORES: Final = ("refusal_score", "steering_score", "kl_div_score")


def select(rows: Iterable[Mapping[str, Any]], n_layers: int) -> DirectionChoice:
    """The direction with the least refusal score under ablation, by the rules of Arditi et al. (arXiv 2406.11717).

    Discarded are candidates with a score that is NaN or None, in the last fifth of the layers (layer >= int(.8
    n_layers)), with a KL above .1, or with a steering score below 0. Of equals the first row is chosen, and the others
    are `ties`.

    rows: a mapping each with `position`, `layer`, `refusal_score`, `steering_score` and `kl_div_score`, in nats;
        other keys are passed over. n_layers: of the model, whose layers the rows count from 0.

    Raises SurgeryError for a row that lacks a key or repeats a place, and for a layer that the model hasn't.
    """
    candidates = [_scores(row, number, n_layers) for number, row in enumerate(rows)]
    places = Counter((each.position, each.layer) for each in candidates)
    if twice := [place for place, count in places.items() if count > 1]:
        position, layer = twice[0]
        raise SurgeryError(f"select: position {position}, layer {layer} has several rows. Give one row a candidate.")
    verdicts = [(each, _why_not(each, n_layers)) for each in candidates]
    passing = [each for each, why in verdicts if why is None]
    chosen = min(passing, key=_refusal, default=None)
    return DirectionChoice(
        chosen=chosen,
        ties=[each for each in passing if chosen and each is not chosen and _refusal(each) == _refusal(chosen)],
        passed=len(passing),
        discarded=dict(Counter(why for _, why in verdicts if why is not None)),
    )


def _refusal(scores: DirectionScores) -> float:
    return math.inf if scores.refusal_score is None else scores.refusal_score


def _scores(row: Mapping[str, Any], number: int, n_layers: int) -> DirectionScores:
    if missing := [key for key in ("position", "layer", *_SCORES) if key not in row]:
        raise SurgeryError(f"select: row {number} lacks {', '.join(missing)}. Give all three scores, NaN if unknown.")
    layer = _whole(row["layer"], "layer", number)
    if not 0 <= layer < n_layers:
        raise SurgeryError(
            f"select: row {number} is of layer {layer}, but a model of {n_layers} layers has 0 to {n_layers - 1}. "
            "Give n_layers of the model that was scored."
        )
    position = row["position"] if isinstance(row["position"], str) else _whole(row["position"], "position", number)
    return DirectionScores(position=position, layer=layer, **{key: _number(row[key]) for key in _SCORES})


def _whole(value: Any, name: str, number: int) -> int:
    """A whole number, which tables may hold as a float."""
    try:
        return int(value) if isinstance(value, float) and value.is_integer() else index(value)
    except TypeError as error:
        raise SurgeryError(f"select: the {name} of row {number} is {value!r}. Give a whole number.") from error


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _why_not(scores: DirectionScores, n_layers: int) -> str | None:
    """The first reason to discard a candidate; None where it passes."""
    if scores.refusal_score is None or scores.steering_score is None or scores.kl_div_score is None:
        return NOT_A_NUMBER
    if scores.layer >= int(n_layers * (1.0 - LATE_SHARE)):
        return "in the last fifth of the layers"
    if scores.kl_div_score > MAX_KL:
        return f"KL above {MAX_KL}"
    if scores.steering_score < MIN_STEERING:
        return "does not induce refusals"
    return None
