"""Completions that were made elsewhere: logs of inspect_ai and lm-evaluation-harness."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlsurgery.probes.results import CompletionRecord


def imported(specs: Iterable[str]) -> "list[CompletionRecord]":
    """The completions of logs, each "FILE[:SET[@ROLE]]". Raises SurgeryError where one can't be read."""
    from vlsurgery.probes.harnesses.importing import ImportSpec, import_logs

    return import_logs([ImportSpec.parse(spec) for spec in specs])
