"""The case at a glance: one line a prompt set, from base over adapted to merged."""

from dataclasses import dataclass

from vlsurgery.figures import theme
from vlsurgery.figures.behaviour import Bar, BarGroup, BehaviourInfo
from vlsurgery.figures.wording import cell_name, percent, role_name

PATH = ("base", "adapted", "merged")
_PREFERRED = ("own", "benign", "text")
_MEASURES = {"refused": "refused", "right": "answered right", "complied": "answered"}


@dataclass(frozen=True)
class Stop:
    """One role on the way. aside: a word where its number is not from the same kind of prompt as the others."""

    role: str
    colour: str
    value: str
    aside: str


@dataclass(frozen=True)
class Line:
    """A prompt set with the kind of picture that says most about adaptation, and what each role makes of it."""

    label: str
    measure: str
    stops: tuple[Stop, ...]


def _pick(groups: list[BarGroup]) -> BarGroup | None:
    """The group with a picture that the adapted model was measured on, else the one in text only."""
    measured = [g for g in groups if any(b.row.role == "adapted" and b.headline.rate is not None for b in g.bars)]
    by_modality = {group.modality: group for group in measured}
    return next((by_modality[m] for m in _PREFERRED if m in by_modality), measured[0] if measured else None)


def _find(groups: list[BarGroup], role: str) -> Bar | None:
    bars = [bar for group in groups for bar in group.bars if bar.row.role == role and bar.headline.rate is not None]
    return bars[0] if bars else None


def _line(groups: list[BarGroup]) -> Line | None:
    chosen = _pick(groups)
    if chosen is None:
        return None
    in_text = [group for group in groups if group.modality == "text"]
    stops, measures = [], []
    for role in PATH:
        here = _find([chosen], role)
        # The base sees no pictures, so its number comes from the same requests in text only, and says so.
        found = here or (_find(in_text, role) if role == "base" else None)
        if found is not None and found.headline.rate is not None:
            aside = "" if here else " (text)"
            stops.append(Stop(role_name(role), theme.role_colour(role), percent(found.headline.rate), aside))
            measures.append(_MEASURES[found.measure])
    return Line(cell_name(chosen.set, chosen.modality), " / ".join(dict.fromkeys(measures)), tuple(stops))


def compute(info: BehaviourInfo) -> tuple[Line, ...]:
    """One line for each prompt set that the adapted model was measured on."""
    by_set: dict[str, list[BarGroup]] = {}
    for group in [*info.harmful, *info.harmless]:
        by_set.setdefault(group.set, []).append(group)
    lines = [_line(groups) for groups in by_set.values()]
    return tuple(line for line in lines if line is not None)
