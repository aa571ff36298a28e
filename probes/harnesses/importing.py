"""Logs of other harnesses as completions, so that a benchmark of one's own stands in our table."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlsurgery.probes.evaluation.judges import is_right
from vlsurgery.probes.harnesses import inspect_reader, lm_eval_reader
from vlsurgery.probes.harnesses.log import HarnessLog, LoggedAnswer
from vlsurgery.probes.prompts import SETS
from vlsurgery.probes.results import CompletionRecord
from vlsurgery.surgery.errors import SurgeryError

_SPEC = re.compile(r"(?P<path>.+?)(?::(?P<set>[^:@/\\]*)(?:@(?P<role>[^@/\\]+))?)?", re.DOTALL)


@dataclass(frozen=True)
class ImportSpec:
    """A log to import: where it is, the prompt set that its prompts belong to, and whose answers it holds.

    set: None for the log of our own task or writer, whose prompts name their sets. role: None for the model's own
    name.
    """

    path: Path
    set: str | None = None
    role: str | None = None

    @classmethod
    def parse(cls, text: str) -> "ImportSpec":
        """FILE, FILE:SET, FILE:SET@ROLE or FILE:@ROLE. Raises SurgeryError for another set or no file."""
        found = _SPEC.fullmatch(text)
        if not found or not found["path"].strip():
            raise SurgeryError(f"--import {text!r}: expected FILE[:SET[@ROLE]], such as run.eval:harmful@adapted.")
        _check_set(found["set"] or None, f"--import {text}")
        return cls(Path(found["path"]), found["set"] or None, found["role"])


def import_logs(specs: Sequence[ImportSpec]) -> list[CompletionRecord]:
    """The completions of several logs. Raises SurgeryError where two logs answer the same prompt for one role."""
    source: dict[tuple[str, str], Path] = {}
    records = []
    for spec in specs:
        for record in import_log(spec.path, role=spec.role, prompt_set=spec.set):
            earlier = source.setdefault((record.role, record.id), spec.path)
            if earlier is not spec.path:
                raise SurgeryError(
                    f"{spec.path}: prompt {record.id!r} of role {record.role!r} is in {earlier} too. "
                    "Import one of them, or give them two roles (FILE:SET@ROLE)."
                )
            records.append(record)
    return records


def import_log(path: Path | str, role: str | None = None, prompt_set: str | None = None) -> list[CompletionRecord]:
    """The completions that one log holds, in its order.

    path: a log of inspect (.eval or .json, of any task), or the samples that lm-evaluation-harness writes with
    --log_samples (samples_*.jsonl). role: whose answers they are; where it is not given, the role that the log names,
    or else the last part of its model's name. prompt_set: where the prompts belong; not given for our own, which name
    their sets.

    What the records hold:
      id        our own prompts' own; of others SET/TASK/ID, with /2, /3 ... where one was asked again
      prompt    the last user message
      request   the words of the whole conversation, so that what is asked again counts once; with a picture, the sample
      answer    for capability: the log's target, or the completion itself where the log's own scorer calls it right in
                another form than the target's
      text      as it was written; a choice among given answers reads "B. Paris"
      tokens    as logged; words where the log has no count, as in lm-evaluation-harness
      cut       as logged; lm-evaluation-harness does not log it, and nothing is taken to be cut
      verdicts  those that our writer or task noted, to which a judge adds

    Raises SurgeryError that names the file, and the sample where one is at fault.
    """
    path = Path(path)
    _check_set(prompt_set, str(path))
    log = _read(path)
    _check_sets_go_together(log, prompt_set)
    role = role or _role(log)
    ids = _unique(_id(answer, log.task, prompt_set) for answer in log.answers)
    digest = questions_digest((name, answer.prompt) for name, answer in zip(ids, log.answers, strict=True))
    return [_record(log, answer, name, role, prompt_set, digest) for name, answer in zip(ids, log.answers, strict=True)]


def questions_digest(prompts: Iterable[tuple[str, str]]) -> str:
    """SHA-256 of (id, text) pairs, in hexadecimal; their order does not matter."""
    lines = sorted(json.dumps(pair, ensure_ascii=True) for pair in prompts)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _read(path: Path) -> HarnessLog:
    if not path.is_file():
        raise SurgeryError(f"{path}: no such file. Expected a log of inspect or of lm-evaluation-harness.")
    match path.suffix.lower():
        case ".eval":
            return inspect_reader.read(path)
        case ".jsonl":
            return lm_eval_reader.read(path)
        case ".json":
            return lm_eval_reader.refuse_results(path) if lm_eval_reader.is_results(path) else inspect_reader.read(path)
    raise SurgeryError(
        f"{path}: expected a log of inspect (.eval, .json) or samples of lm-evaluation-harness (.jsonl), "
        f"found {path.suffix or 'no suffix'!r}."
    )


def _check_set(prompt_set: str | None, where: str) -> None:
    if prompt_set is not None and prompt_set not in SETS:
        raise SurgeryError(f"{where}: unknown set {prompt_set!r}. Expected one of {', '.join(SETS)}.")


def _check_sets_go_together(log: HarnessLog, prompt_set: str | None) -> None:
    """Either the user names the set or every sample does."""
    own = log.own_sets
    if prompt_set is not None and own:
        counts = ", ".join(f"{name} {count}" for name, count in own.items())
        raise SurgeryError(f"{log.path}: its samples name their sets ({counts}). Leave out :{prompt_set}.")
    if prompt_set is None and sum(own.values()) < len(log.answers):
        raise SurgeryError(
            f"{log.path}: does not say which set its prompts belong to. "
            f"Name it: {log.path}:SET, with one of {', '.join(SETS)}."
        )


def _role(log: HarnessLog) -> str:
    """The one role that our own writer noted, or else the last part of the model's name."""
    noted = {answer.own.role for answer in log.answers if answer.own and answer.own.role}
    name = noted.pop() if len(noted) == 1 else (log.model or "").rstrip("/").rpartition("/")[2]
    if not name:
        raise SurgeryError(f"{log.path}: does not say whose answers it holds. Name the role: {log.path}:SET@ROLE.")
    return name


def _id(answer: LoggedAnswer, task: str, prompt_set: str | None) -> str:
    return answer.id if answer.own else f"{prompt_set}/{task}/{answer.id}"


def _unique(ids: Iterable[str]) -> list[str]:
    """Every id, with /2, /3 ... at those that were there before."""
    made: dict[str, None] = {}
    for each in ids:
        name, number = each, 1
        while name in made:
            number += 1
            name = f"{each}/{number}"
        made[name] = None
    return list(made)


def _record(
    log: HarnessLog, answer: LoggedAnswer, name: str, role: str, prompt_set: str | None, digest: str
) -> CompletionRecord:
    own = answer.own
    return CompletionRecord(
        role=role,
        id=name,
        request=own.request if own else _request(answer, log.task),
        set=own.set if own else str(prompt_set),
        modality=own.modality if own else ("own" if answer.pictured else "text"),
        prompt=answer.prompt,
        text=answer.text,
        answer=own.answer if own else _answer(log, answer, prompt_set),
        tokens=len(answer.text.split()) if answer.tokens is None else answer.tokens,
        cut=answer.cut,
        verdicts=answer.verdicts,
        prompts_digest=(own and own.prompts_digest) or digest,
    )


def _request(answer: LoggedAnswer, task: str) -> str:
    """The words of the conversation; with a picture, which may be all that differs, the sample that they are of."""
    words = " ".join(answer.conversation.lower().split())
    return f"{words} [picture of {task}/{answer.id}]" if answer.pictured else words


def _answer(log: HarnessLog, answer: LoggedAnswer, prompt_set: str | None) -> str | None:
    """The right answer of a capability prompt, such that `is_right` agrees with the log's own scorer."""
    if prompt_set != "capability":
        if not answer.generated:
            raise SurgeryError(
                f"{log.path}, sample {answer.id}: the model chose among given answers and wrote nothing that refuses "
                f"or complies. Import it as a capability set: {log.path}:capability."
            )
        return None
    if not answer.target and answer.right is None:
        raise SurgeryError(
            f"{log.path}, sample {answer.id}: a capability prompt needs a right answer; the log has neither a target "
            "nor a score. Import it as another set, or run the benchmark again with a scorer."
        )
    if answer.right and not is_right(answer.text, answer.target or ""):
        return answer.text
    return answer.target or ""
