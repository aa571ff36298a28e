"""The case at a glance: one line a prompt set, from base over adapted to merged."""

from dataclasses import dataclass

from vlsurgery.figures import theme
from vlsurgery.figures.behaviour import Bar, BarGroup, BehaviourInfo
from vlsurgery.figures.findings import enough
from vlsurgery.figures.wording import cell_name, outcomes, percent, role_name

PATH = ("base", "adapted", "merged")
_PREFERRED = ("own", "benign", "text")
_MEASURES = {"refused": "refused", "right": "answered right", "complied": "answered"}


@dataclass(frozen=True)
class Stop:
    """One role on the way. three: refused / complied / neither. aside: a word where its numbers are not from the same
    kind of prompt as the others'."""

    role: str
    colour: str
    value: str
    three: str
    aside: str


@dataclass(frozen=True)
class Line:
    """A prompt set with the kind of picture that says most about adaptation, and what each role makes of it."""

    label: str
    measure: str
    stops: tuple[Stop, ...]


def _pick(groups: list[BarGroup]) -> BarGroup | None:
    """The group with a picture that the adapted model was asked enough requests of, else the one in text only."""
    measured = [g for g in groups if any(b.row.role == "adapted" and _told(b) for b in g.bars)]
    by_modality = {group.modality: group for group in measured}
    return next((by_modality[m] for m in _PREFERRED if m in by_modality), measured[0] if measured else None)


def _told(bar: Bar) -> bool:
    """Whether a bar's rate was measured on enough requests to stand at the top of a page."""
    return bar.headline.rate is not None and enough(bar.headline)


def _find(groups: list[BarGroup], role: str) -> Bar | None:
    bars = [bar for group in groups for bar in group.bars if bar.row.role == role and _told(bar)]
    return bars[0] if bars else None


def _is_about_pictures(group: BarGroup) -> bool:
    """Whether the group's prompts are questions whose answers are in the picture."""
    return group.modality == "own" and any(bar.measure == "right" for bar in group.bars)


def _line(groups: list[BarGroup]) -> Line | None:
    chosen = _pick(groups)
    if chosen is None:
        return None
    in_text = [group for group in groups if group.modality == "text"]
    stops, measures = [], []
    for role in PATH:
        here = _find([chosen], role)
        # The base sees no pictures, so its number comes from the same requests in text only, and says so. Questions
        # about a picture can't be asked without it: those in words are others.
        found = here or (_find(in_text, role) if role == "base" and not _is_about_pictures(chosen) else None)
        if found is not None and found.headline.rate is not None:
            aside = "" if here else " (text)"
            value = percent(found.headline.rate)
            stops.append(Stop(role_name(role), theme.role_colour(role), value, outcomes(found.row), aside))
            measures.append(_MEASURES[found.measure])
    return Line(cell_name(chosen.set, chosen.modality), " / ".join(dict.fromkeys(measures)), tuple(stops))


def compute(info: BehaviourInfo) -> tuple[Line, ...]:
    """One line for each prompt set that the adapted model was asked enough requests of."""
    by_set: dict[str, list[BarGroup]] = {}
    for group in [*info.harmful, *info.harmless]:
        by_set.setdefault(group.set, []).append(group)
    lines = [_line(groups) for groups in by_set.values()]
    return tuple(line for line in lines if line is not None)
