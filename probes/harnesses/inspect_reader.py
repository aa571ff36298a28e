"""Logs of inspect (https://inspect.aisi.org.uk), of any task, read by inspect itself."""

import stat
import zipfile
from pathlib import Path
from typing import Any

from vlsurgery.probes.harnesses.extras import extra
from vlsurgery.probes.harnesses.log import HarnessLog, LoggedAnswer, OwnFields, own_fields
from vlsurgery.probes.results import KINDS, LABELS, Verdict
from vlsurgery.surgery.errors import SurgeryError

PICTURE_PLACEHOLDER = "(Image)"
MAX_UNPACKED_BYTES = 1 << 28  # of any log, and for larger ones the ratio to what is packed: words pack to a tenth
MAX_RATIO = 100
_MARKS = {"C": True, "I": False, "P": False, "N": False}


def read(path: Path) -> HarnessLog:
    """The answers of a finished log. Raises SurgeryError where it is not one, or a sample has no answer."""
    log = _opened(path)
    if log.status != "success":
        raise SurgeryError(
            f"{path}: the run did not finish (status {log.status!r}). Finish it: inspect eval-retry {path}"
        )
    if getattr(log, "invalidated", False):  # early versions of inspect can't mark samples
        raise SurgeryError(f"{path}: samples of it were marked invalid. Run them again: inspect eval-retry {path}")
    if not log.samples:
        raise SurgeryError(f"{path}: holds no samples. Run the task again without --no-log-samples.")
    expected = log.results.completed_samples if log.results else 0
    if len(log.samples) < expected:
        raise SurgeryError(f"{path}: holds {len(log.samples)} of the {expected} samples that were run. Copy it again.")
    marks = _marks(log.samples)
    limit = log.plan.config.max_tokens
    answers = [_answer(path, sample, right, limit) for sample, right in zip(log.samples, marks, strict=True)]
    return HarnessLog(path, log.eval.task.rpartition("/")[2], log.eval.model, answers)


def was_cut(output: Any, limit: int | None) -> bool:
    """Whether an output of a model ended at a limit of tokens. Where the provider does not say, `limit` decides."""
    reason = output.choices[0].stop_reason
    reached = limit is not None and output.usage is not None and output.usage.output_tokens >= limit
    return reason in ("max_tokens", "model_length") or (reason == "unknown" and reached)


def _opened(path: Path) -> Any:
    inspect_log = extra("inspect_ai.log", "inspect")
    try:
        _check_sums(path)
        log = inspect_log.read_eval_log(str(path), resolve_attachments=True)
    except Exception as error:  # of a damaged file inspect's reader raises errors of every kind
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise SurgeryError(
            f"{path}: not a readable log of inspect: {reason}. Copy it again or run the task again."
        ) from error
    newest = inspect_log.EvalLog.model_fields["version"].default
    if log.version > newest:
        raise SurgeryError(
            f"{path}: a log of version {log.version}; the installed inspect_ai reads up to {newest}. "
            "Run: pip install --upgrade inspect_ai."
        )
    return log


def _check_sums(path: Path) -> None:
    """Check the archive's checksums, which inspect's reader does not, and that it does not unpack to far more than any
    log does. Once inspect is imported, zipfile knows zstd."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("not a regular file")
    if path.suffix.lower() == ".eval":
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(part.file_size for part in archive.infolist())
            if unpacked > max(MAX_UNPACKED_BYTES, MAX_RATIO * path.stat().st_size):
                raise ValueError(f"{path.stat().st_size} bytes that unpack to {unpacked}")
            damaged = archive.testzip()
        if damaged:
            raise ValueError(f"its part {damaged} is damaged")


def _answer(path: Path, sample: Any, right: bool | None, limit: int | None) -> LoggedAnswer:
    where = f"{path}, sample {sample.id}" + (f", epoch {sample.epoch}" if sample.epoch > 1 else "")
    if sample.error is not None:
        reason = " ".join(sample.error.message.split())[:160]
        raise SurgeryError(f"{where}: ended with an error: {reason}. Run it again: inspect eval-retry {path}")
    if sample.output.empty:
        raise SurgeryError(f"{where}: has no output of a model. Expected a task that calls generate().")
    try:
        own = own_fields(sample.metadata)
    except SurgeryError as error:
        raise SurgeryError(f"{where}: {error}. Write the log again.") from error
    prompt, conversation, pictured = asked(sample.input)
    usage = sample.output.usage
    return LoggedAnswer(
        id=str(sample.id),
        prompt=prompt,
        conversation=conversation,
        text=sample.output.completion,
        target=_target(sample.target),
        right=right,
        pictured=pictured,
        tokens=usage.output_tokens if usage else None,
        cut=was_cut(sample.output, limit),
        verdicts=_verdicts(where, sample.scores or {}, own),
        own=own,
    )


def asked(messages: Any) -> tuple[str, str, bool]:
    """Of a sample's input: the last user message, the whole conversation, and whether a picture came with it."""
    if isinstance(messages, str):
        return messages, messages, False
    users = [message for message in messages if message.role == "user"] or messages
    prompt = _words(users[-1]) if users else ""
    conversation = prompt if len(messages) == 1 else "\n".join(f"{each.role}: {_words(each)}" for each in messages)
    return prompt, conversation, any(_is_picture(part) for message in messages for part in _parts(message))


def _words(message: Any) -> str:
    """The text of a message. Its own `text` has placeholders for pictures in some versions of inspect."""
    if isinstance(message.content, str):
        return message.content
    return "".join(part.text for part in _parts(message) if part.type == "text" and not _is_picture(part))


def _parts(message: Any) -> list[Any]:
    return [] if isinstance(message.content, str) else message.content


def _is_picture(part: Any) -> bool:
    """Whether a part of a message is a picture, or what versions of inspect about 0.3.200 log in its place."""
    return part.type == "image" or (part.type == "text" and part.text == PICTURE_PLACEHOLDER)


def _target(target: str | list[str]) -> str | None:
    """The right answer; of several, which are alternatives, the first."""
    return (target if isinstance(target, str) else next(iter(target), "")) or None


def _marks(samples: Any) -> list[bool | None]:
    """Whether the log's first scorer calls each answer right, where its scores are marks: C and I, or from 0 to 1."""
    values: list[Any] = [next(iter(sample.scores.values())).value if sample.scores else None for sample in samples]
    if all(isinstance(value, str) and value in _MARKS for value in values):
        return [_MARKS[value] for value in values]
    if all(isinstance(value, bool | int | float) and 0 <= value <= 1 for value in values):
        return [value == 1 for value in values]
    return [None] * len(values)


def _verdicts(where: str, scores: dict[str, Any], own: OwnFields | None) -> dict[str, Verdict]:
    """The verdicts among the scores of one of our own prompts: those of judges, which have a kind."""
    judged = {name: score for name, score in scores.items() if own and "kind" in (score.metadata or {})}
    found = {}
    for name, score in judged.items():
        label, kind = score.value, score.metadata["kind"]
        if label not in LABELS or kind not in KINDS:
            raise SurgeryError(
                f"{where}: score {name!r} has label {label!r} and kind {kind!r}. "
                f"Expected {', '.join(LABELS)}, and one of {', '.join(KINDS)}."
            )
        verdict = Verdict(label=label, kind=kind, reason=score.explanation or "")
        found[str(score.metadata.get("judge", name))] = verdict
    return found
