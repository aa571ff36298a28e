"""Any Python function as a judge."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vlsurgery.probes.evaluation.judges.checking import check_rows, read_verdict, shown
from vlsurgery.probes.evaluation.judges.protocol import Exchange
from vlsurgery.probes.results import Verdict
from vlsurgery.surgery.errors import SurgeryError


class CallableJudge:
    """A judge made of a function `f(completions, prompts)`.

    function: gets a list of completions and a list of prompts (None where one isn't known), of the same length, and
        gives a row for each: "refused", "complied" or "neither"; True where refused and False where complied; a dict
        with "label" and where wanted "kind" and "reason"; or a Verdict.
    name: as reports show it; by default the function's own.
    """

    def __init__(self, function: Callable[[list[str], list[str | None]], Any], name: str | None = None) -> None:
        self.function = function
        self.name: str = name or getattr(function, "__name__", None) or type(function).__name__

    @property
    def description(self) -> str:
        return f"The caller's own function {self.name}; how often it errs is not known here."

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """One verdict an exchange, in their order.

        Raises SurgeryError of one line where the function fails (its own error is the cause), gives fewer or more rows,
        or something that is no verdict.
        """
        if not exchanges:
            return []
        try:
            rows = self.function([each.completion for each in exchanges], [each.prompt for each in exchanges])
        except SurgeryError:
            raise
        except Exception as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise SurgeryError(
                f"judge {self.name}, rows 1 to {len(exchanges)}: expected verdicts, but it raised {what}. "
                "It is called as f(completions, prompts); mend it and run `vlsurgery rejudge`."
            ) from error
        found = self._as_list(rows)
        check_rows(self.name, found, len(exchanges))
        return [
            read_verdict(self.name, row, value, exchange)
            for row, (value, exchange) in enumerate(zip(found, exchanges, strict=True), start=1)
        ]

    def _as_list(self, rows: Any) -> list[Any]:
        if isinstance(rows, str | Mapping) or not hasattr(rows, "__iter__"):
            raise SurgeryError(
                f"judge {self.name}: expected a list with a verdict for every completion, found {shown(rows)}."
            )
        return list(rows)
