"""The page's server on one case, from its folder to its end."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vlsurgery.cli.explore.answers import Answers
from vlsurgery.cli.explore.bench import ModelBench
from vlsurgery.cli.explore.case_data import CaseData
from vlsurgery.cli.explore.seats import seats_of
from vlsurgery.cli.explore.server import PageServer
from vlsurgery.cli.options import Running
from vlsurgery.cli.workflow.case import Case
from vlsurgery.cli.workflow.engine import Job, StepOptions
from vlsurgery.cli.workflow.steps import prepare_to_run

if TYPE_CHECKING:
    from vlsurgery.probes.models import Loader

TOKEN_BYTES = 24  # of randomness in the page's address


@contextmanager
def open_page(folder: Path, running: Running, port: int) -> Iterator[PageServer]:
    """The server of a case's page, which listens already; on exit the model in memory is let go.

    Raises SurgeryError where there is no case, a file of it is broken, or the port can't be had.
    """
    job = Job(Case.open(folder), StepOptions(running=running))

    def loader() -> "Loader":
        prepare_to_run(job)
        return job.loader("evaluate")

    bench = ModelBench(seats_of(job), loader)
    answers = Answers(CaseData(job.case), bench)
    with PageServer(port, secrets.token_urlsafe(TOKEN_BYTES), answers.routes) as server:
        try:
            yield server
        finally:
            bench.close()
