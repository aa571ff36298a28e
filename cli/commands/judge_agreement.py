"""`vlsurgery judge-agreement`: how far a judge agrees with people."""

from pathlib import Path
from typing import Annotated

import typer

from vlsurgery.cli.options import JudgeLabelsOption, JudgesOption, Session, standard


@standard
def judge_agreement(
    session: Session,
    labels: Annotated[
        Path,
        typer.Argument(
            metavar="LABELS.csv",
            help="Completions with people's labels: columns completion (or text), label (or final_label, human_label), "
            "and where they are known prompt, role and id.",
        ),
    ],
    judge: JudgesOption = None,
    judge_labels: JudgeLabelsOption = None,
    alone: Annotated[
        bool, typer.Option("--alone", help="Only measure the judge; leave the case's table as it is.")
    ] = False,
) -> None:
    """Measure a judge against people's labels.

    Prints accuracy, precision and recall, with intervals.

    Also prints the refusal rate corrected for the judge's errors (Rogan-Gladen), whose interval carries them. Where
    the labels are of a case's completions (vlsurgery completions --csv writes the table to fill in), they are kept in
    case/labels.csv, and the case's rates are corrected by them from then on.

    \b
    Example:
      vlsurgery judge-agreement labels.csv --judge standard --judge rules
    """
    from vlsurgery.cli.view.agreement import agreement_tables
    from vlsurgery.cli.workflow.case import FILE, Case
    from vlsurgery.cli.workflow.engine import StepOptions
    from vlsurgery.cli.workflow.human_labels import keep_labels
    from vlsurgery.cli.workflow.judge_source import free_judge_source, recorded_judge_source
    from vlsurgery.cli.workflow.rejudging import judge_again
    from vlsurgery.probes.evaluation.judges.agreement import against_labels
    from vlsurgery.probes.evaluation.judges.labels import read_labels

    rows = read_labels(labels)
    options = StepOptions(judges=judge or None, judge_labels=judge_labels)
    case = Case.open(session.case) if not alone and (session.case / FILE).is_file() else None
    source = free_judge_source(options) if case is None else recorded_judge_source(case, options)
    if session.plan:
        session.console.show(f"Would judge {len(rows)} labelled completions by {', '.join(source.names)}.")
        return
    result = against_labels(rows, source.judges, str(labels))
    if case is not None:
        session.lock.claim(session.case)
        keep_labels(case, rows, labels)
        judge_again(case, options, session.console.progress)
        session.console.say(f"{case.folder}: its rates are corrected by these labels; see vlsurgery report")
    session.console.emit(result.json_text())
    session.console.show(*agreement_tables(result))
