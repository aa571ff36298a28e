"""One HTML file that holds a case: the verdict in words, the behaviour table, the figures, and what they rest on."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from vlsurgery.figures import behaviour as behaviour_figure, glance, judging, page, said, table, theme, transcripts
from vlsurgery.figures.doubts import doubts
from vlsurgery.figures.embedding import Embedded, embed
from vlsurgery.figures.sections import Section, sections
from vlsurgery.figures.verdict import verdict
from vlsurgery.figures.wording import ROLE_ORDER, rank, role_name
from vlsurgery.probes.results import BehaviourResult, CompletionsResult, ProbeResult, TradeoffResult
from vlsurgery.surgery.results import DiffResult, Result, write_text


@dataclass(frozen=True)
class CheckpointRow:
    role: str
    path: str
    identity: str


def checkpoint_rows(results: list[Result]) -> tuple[CheckpointRow, ...]:
    """Every checkpoint that the results speak of, once; a role twice if results disagree on which it was."""
    found = {
        CheckpointRow(role, ref.path, ref.identity) for result in results for role, ref in result.checkpoints.items()
    }
    return tuple(sorted(found, key=lambda row: (rank(ROLE_ORDER, row.role), row.path, row.identity)))


def disagreements(rows: tuple[CheckpointRow, ...]) -> tuple[str, ...]:
    """A warning a role under which results speak of different checkpoints."""
    identities: dict[str, set[str]] = {}
    for row in rows:
        identities.setdefault(row.role, set()).add(row.identity)
    return tuple(
        f"The results speak of {len(found)} different checkpoints as {role}: they were not all made from the same"
        " files. Run the older steps again before comparing them."
        for role, found in identities.items()
        if len(found) > 1
    )


def _drawing(section: Section) -> Embedded | None:
    return embed(section.anchor, section.figure, section.rows, section.commands) if section.figure else None


@dataclass(frozen=True)
class Part:
    """A section of the page as its navigation names it."""

    anchor: str
    name: str


def _parts(found: tuple[Section, ...], judged: bool) -> tuple[Part, ...]:
    """Every section of the page, in its order. judged: whether there is one on judges."""
    first = (Part("verdict", "Verdict"), Part("table", "Behaviour"), Part("said", "What they said"))
    last = (*([Part("judges", "Who judged")] if judged else []), Part("provenance", "What this rests on"))
    return (*first, *(Part(one.anchor, one.title) for one in found), *last)


def _steps(results: list[Result]) -> list[dict[str, str]]:
    return [
        {
            "name": result.kind,
            "version": result.version,
            "created": result.created,
            "settings": json.dumps(result.settings, indent=2, ensure_ascii=False, default=str),
        }
        for result in results
    ]


def _notes(probe: ProbeResult | None, behaviour: BehaviourResult | None) -> list[str]:
    return [*(probe.notes if probe else []), *(behaviour.notes if behaviour else [])]


def _judged(
    behaviour: BehaviourResult | None, roles: tuple[str, ...], completions: CompletionsResult | None
) -> dict[str, object]:
    """What the page says of judges and kinds; nothing without an evaluation."""
    if behaviour is None:
        return {"judges": (), "by_judge": (), "agreements": (), "undecided": "", "kinds": ()}
    return {
        "judges": behaviour.judges,
        "by_judge": judging.by_judge(behaviour, roles),
        "agreements": judging.agreements(behaviour),
        "undecided": judging.undecided(behaviour),
        "kinds": judging.kinds(behaviour, roles, completions),
    }


def report(
    diff: DiffResult | None,
    probe: ProbeResult | None,
    behaviour: BehaviourResult | None,
    tradeoff: TradeoffResult | None,
    cdn: bool = False,
    completions: CompletionsResult | None = None,
) -> str:
    """The whole report as HTML.

    Any result may be None: its section then names the command that makes it. cdn: link plotly.js instead of embedding
    it (4 MB less, but the file needs the network). completions: what every model said; the page holds as many as fit,
    those that flipped first. All text from results is escaped.
    """
    results: list[Result] = [result for result in (diff, probe, behaviour, tradeoff) if result is not None]
    groups = behaviour_figure.compute(behaviour) if behaviour else None
    behaviour_table = table.compute(groups) if groups else None
    roles = behaviour_table.roles if behaviour_table else ()
    rows, found = checkpoint_rows(results), sections(diff, probe, behaviour, tradeoff)
    return page.render(
        "page.html.jinja",
        cdn,
        ("said.js", "nav.js"),
        doubts=doubts(probe, behaviour, tradeoff),
        verdict=verdict(diff, probe, behaviour, tradeoff),
        glance=glance.compute(groups) if groups else (),
        table=behaviour_table,
        table_missing="Not measured yet. This makes it: `vlsurgery evaluate`",
        roles=[{"role": role, "name": role_name(role), "colour": theme.role_colour(role)} for role in roles],
        **_judged(behaviour, roles, completions),
        said=transcripts.pack(transcripts.compute(completions)) if completions else None,
        flips=said.FLIPS,
        flipped=said.compute(completions) if completions else (),
        paired=table.paired(behaviour) if behaviour else (),
        sections=[asdict(replace(one, figure=None, rows=())) | {"drawing": _drawing(one)} for one in found],
        parts=_parts(found, behaviour is not None and bool(behaviour.judges)),
        checkpoints=rows,
        warnings=disagreements(rows),
        notes=_notes(probe, behaviour),
        steps=_steps(results),
    )


def write_report(
    path: Path,
    diff: DiffResult | None,
    probe: ProbeResult | None,
    behaviour: BehaviourResult | None,
    tradeoff: TradeoffResult | None,
    cdn: bool = False,
    completions: CompletionsResult | None = None,
) -> None:
    """Write the report so that `path` holds either the old one or the whole new one. See `report`."""
    write_text(path, report(diff, probe, behaviour, tradeoff, cdn, completions))
