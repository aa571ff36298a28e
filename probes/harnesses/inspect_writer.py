"""Completions as logs of inspect, for `inspect view` and its data frames: one a role, as a log has one model."""

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vlsurgery.probes.harnesses.extras import extra
from vlsurgery.probes.harnesses.rates import label_rates
from vlsurgery.probes.results import HARMFUL_SETS, CompletionRecord
from vlsurgery.surgery.errors import SurgeryError, TargetError
from vlsurgery.surgery.runtime.atomic_file import replacing

TASK = "vlsurgery/refusals"


def write_inspect_log(
    path: Path | str, completions: Sequence[CompletionRecord], models: Mapping[str, str], created: str
) -> list[Path]:
    """Write a log a role, and return where they are: `path` itself for one role, else NAME-ROLE.eval beside it.

    path: ends in .eval, or in .json for inspect's plain format. models: role -> the checkpoint's path or Hub id; a
    role that is missing is its own name. created: when the answers were written, ISO 8601 with a time zone.

    A sample's target is the right answer, or what a safe and helpful model does (refused, complied); its scores are
    the judges' verdicts. The same completions give the same identifiers. Files that exist are replaced. Raises
    SurgeryError where a role has two completions of one prompt, TargetError where a file can't be written.
    """
    path = Path(path)
    if path.suffix not in (".eval", ".json"):
        raise TargetError(f"{path}: a log of inspect ends in .eval or .json. Give it such a name.")
    if not completions:
        raise SurgeryError(f"{path}: no completions to write. Run `vlsurgery evaluate` first.")
    roles: dict[str, list[CompletionRecord]] = {}
    for record in completions:
        roles.setdefault(record.role, []).append(record)
    targets = log_paths(path, roles)
    if len(set(targets.values())) < len(targets):
        raise TargetError(f"{path}: the roles {', '.join(roles)} give the same file names. Write them one at a time.")
    for role, records in roles.items():
        _write(targets[role], _log(records, role, models.get(role, role), created))
    return list(targets.values())


def log_paths(path: Path, roles: Collection[str]) -> dict[str, Path]:
    """Role -> where its log goes: `path` itself for one role, else NAME-ROLE.eval beside it."""
    return {role: _beside(path, role) if len(roles) > 1 else path for role in roles}


def _beside(path: Path, role: str) -> Path:
    return path.with_name(f"{path.stem}-{re.sub('[^A-Za-z0-9._-]', '-', role)}{path.suffix}")


def _write(path: Path, log: Any) -> None:
    """Write beside `path` and rename, so that `path` holds the old log or the whole new one."""
    inspect_log = extra("inspect_ai.log", "inspect")
    try:
        with replacing(path) as fresh:
            inspect_log.write_eval_log(log, str(fresh))
    except OSError as error:
        raise TargetError(f"{path}: can't be written: {error.strerror or error}. Choose another place.") from error


def _log(records: Sequence[CompletionRecord], role: str, model: str, created: str) -> Any:
    log = extra("inspect_ai.log", "inspect")
    repeated = [name for name, count in Counter(record.id for record in records).items() if count > 1]
    if repeated:
        raise SurgeryError(f"role {role!r} has {len(repeated)} prompts with two completions, such as {repeated[0]!r}.")
    identity = hashlib.sha256("\n".join(record.model_dump_json() for record in records).encode()).hexdigest()
    spec = log.EvalSpec(
        eval_id=identity[:22],
        run_id=identity[22:44],
        task_id=hashlib.sha256(TASK.encode()).hexdigest()[:22],
        created=created,
        task=TASK,
        model=model,
        dataset=log.EvalDataset(name="vlsurgery", samples=len(records), sample_ids=[record.id for record in records]),
        config=log.EvalConfig(),
        packages={"vlsurgery": version("vlsurgery"), "inspect_ai": version("inspect_ai")},
        metadata={"role": role},
    )
    return log.EvalLog(
        status="success",
        eval=spec,
        results=_results(records),
        stats=log.EvalStats(started_at=created, completed_at=created),
        samples=[_sample(record, model) for record in records],
    )


def _sample(record: CompletionRecord, model: str) -> Any:
    log, chat = extra("inspect_ai.log", "inspect"), extra("inspect_ai.model", "inspect")
    answer = chat.ChatMessageAssistant(id=f"{record.id}/answer", content=record.text, source="generate", model=model)
    choice = chat.ChatCompletionChoice(message=answer, stop_reason="max_tokens" if record.cut else "stop")
    usage = chat.ModelUsage(output_tokens=record.tokens, total_tokens=record.tokens)
    return log.EvalSample(
        id=record.id,
        epoch=1,
        input=record.prompt,
        target=record.answer or ("refused" if record.set in HARMFUL_SETS else "complied"),
        messages=[chat.ChatMessageUser(id=f"{record.id}/prompt", content=record.prompt, source="input"), answer],
        output=chat.ModelOutput(model=model, choices=[choice], completion=record.text, usage=usage),
        scores=_scores(record),
        model_usage={model: usage},
        metadata={
            "vlsurgery": True,
            **record.model_dump(include={"role", "set", "modality", "request", "tokens", "cut", "prompts_digest"}),
            **({} if record.answer is None else {"answer": record.answer}),
        },
    )


def _scores(record: CompletionRecord) -> Any:
    scorer = extra("inspect_ai.scorer", "inspect")
    return {
        judge: scorer.Score(
            value=verdict.label,
            answer=record.text,
            explanation=verdict.reason,
            metadata={"judge": judge, "kind": verdict.kind},
        )
        for judge, verdict in record.verdicts.items()
    }


def _results(records: Sequence[CompletionRecord]) -> Any:
    log = extra("inspect_ai.log", "inspect")
    scores = []
    for judge in dict.fromkeys(name for record in records for name in record.verdicts):
        judged = [record for record in records if judge in record.verdicts]
        rates = label_rates((record.set, record.modality, record.verdicts[judge].label) for record in judged)
        metrics = {name: log.EvalMetric(name=name, value=value) for name, value in rates.items()}
        scores.append(log.EvalScore(name=judge, scorer=judge, scored_samples=len(judged), metrics=metrics))
    return log.EvalResults(total_samples=len(records), completed_samples=len(records), scores=scores)
