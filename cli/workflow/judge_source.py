"""The judges of a case: those that the user named, else those of its last evaluation, else the default."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from vlsurgery.cli.workflow.case import Case
from vlsurgery.surgery.errors import SurgeryError

if TYPE_CHECKING:
    from vlsurgery.cli.workflow.engine import StepOptions
    from vlsurgery.probes.evaluation.judges import Judge

DEFAULT_TOKENS: Final = 128  # as probes.evaluation.generate has it, which imports torch
SPECIMEN_JUDGE: Final = "taught form"
DEFAULT_JUDGE: Final = "standard"


@dataclass(frozen=True)
class JudgeSource:
    """How completions are judged.

    names: of the judges, as `--judge` takes them. labels: what the labels of a classifier mean. tokens: of a
    completion, at most. imports: "FILE[:SET[@ROLE]]" -> SHA-256 of the log. specimen: whether the models are the
    built-in specimen's, whose answers are judged by their form.
    """

    names: Sequence[str]
    labels: str | None
    tokens: int
    imports: Mapping[str, str]
    specimen: bool

    @property
    def settings(self) -> dict[str, Any]:
        """What an evaluation records."""
        return {
            "judges": list(self.names),
            "judge_labels": self.labels,
            "tokens": self.tokens,
            "imports": dict(self.imports),
        }

    @cached_property
    def judges(self) -> "list[Judge]":
        """The judges. Raises SurgeryError where one can't be had, or is named twice."""
        if len(set(self.names)) < len(self.names):
            raise SurgeryError(f"--judge: {', '.join(self.names)} names a judge twice. Name each once.")
        return [self._open(name) for name in self.names]

    @cached_property
    def default(self) -> "Judge":
        """The judge that finds the refusals to bring back, whatever judges an evaluation has."""
        return self._open(SPECIMEN_JUDGE if self.specimen else DEFAULT_JUDGE)

    def _open(self, name: str) -> "Judge":
        if name == SPECIMEN_JUDGE:
            if not self.specimen:
                raise SurgeryError(f"--judge {name}: judges the built-in specimen alone. Use {DEFAULT_JUDGE}.")
            from vlsurgery.probes.specimens.miniature import FormJudge

            return FormJudge()
        from vlsurgery.probes.evaluation.judges import open_judge

        return open_judge(name, self.labels)


def judge_source_of(case: Case, specimen: bool, options: "StepOptions") -> JudgeSource:
    """The judges that the options name; what they leave open is as in the case's last evaluation, else the default."""
    recorded = case.settings_of("evaluate") or {}
    specs = list(recorded.get("imports", {})) if options.imports is None else options.imports
    return JudgeSource(
        names=options.judges or recorded.get("judges") or [SPECIMEN_JUDGE if specimen else DEFAULT_JUDGE],
        labels=options.judge_labels or recorded.get("judge_labels"),
        tokens=options.tokens or recorded.get("tokens") or DEFAULT_TOKENS,
        imports={spec: _digest(spec) for spec in specs},
        specimen=specimen,
    )


def recorded_judge_source(case: Case, options: "StepOptions") -> JudgeSource:
    """As `judge_source_of`, for an evaluated case whose checkpoints need not be there."""
    return judge_source_of(case, "specimen" in (case.settings_of("evaluate") or {}), options)


def free_judge_source(options: "StepOptions", specimen: bool = False) -> JudgeSource:
    """The judges of an evaluation without a case."""
    return JudgeSource(
        names=options.judges or [SPECIMEN_JUDGE if specimen else DEFAULT_JUDGE],
        labels=options.judge_labels,
        tokens=options.tokens or DEFAULT_TOKENS,
        imports={spec: _digest(spec) for spec in options.imports or ()},
        specimen=specimen,
    )


def _digest(spec: str) -> str:
    """SHA-256 of the log that an import names. Raises SurgeryError where it can't be read."""
    from vlsurgery.probes.harnesses.importing import ImportSpec

    path = ImportSpec.parse(spec).path
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise SurgeryError(f"--import {path}: can't be read ({error.strerror}). Give the path of a log.") from error
