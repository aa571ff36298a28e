"""Chat templates, rendered where they can do no harm: in a process of their own, with bounded time and memory."""

import atexit
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from threading import Event, Lock, Timer
from typing import Any

from vlsurgery.probes.templates.worker import READY
from vlsurgery.surgery.errors import CheckpointError, SurgeryError
from vlsurgery.surgery.runtime.visible import visible

MAX_SECONDS = 10.0  # of one conversation; templates of published models take milliseconds
MAX_SECONDS_TO_START = 120.0  # of the process itself, on a busy machine
MAX_FAULT = 300  # letters of a template's own message

Messages = Sequence[Mapping[str, Any]]


def template_of(name: str, speaker: Any) -> str | None:
    """The chat template of a tokenizer or a processor, by transformers' rule; None where it has none.

    name: of the checkpoint.

    Raises CheckpointError where it has several, none of them called "default".
    """
    found = getattr(speaker, "chat_template", None)
    if isinstance(found, Mapping):
        if "default" not in found:
            raise CheckpointError(
                f"{name}: has the chat templates {', '.join(map(str, found))}, expected one called "
                '"default". Save the one to use as chat_template.jinja.'
            )
        found = found["default"]
    return found or None


def render(
    name: str, template: str, messages: Messages, variables: Mapping[str, Any] | None = None, answer_next: bool = True
) -> str:
    """A conversation under a chat template, as transformers renders it.

    name: of the checkpoint. variables: what the template can read beside the messages (special tokens, switches).
    answer_next: whether the start of the assistant's turn is added.

    Raises CheckpointError where the template fails, takes longer than MAX_SECONDS, or makes too much.
    """
    order = {"template": template, "messages": messages, "variables": variables or {}, "answer_next": answer_next}
    try:
        answer = _worker().ask(json.dumps(order), MAX_SECONDS)
    except TimeoutError as error:
        raise _fault(name, f"does not end within {MAX_SECONDS:.0f} seconds") from error
    except EOFError as error:
        raise _fault(name, "ended the process that it ran in") from error
    if "fault" in answer:
        raise _fault(name, " ".join(visible(answer["fault"]).split())[:MAX_FAULT].rstrip(": "))
    return str(answer["text"])


def _fault(name: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"{name}: its chat template fails: {what}. Mend chat_template.jinja, or take that of the published model."
    )


@cache
def _worker() -> "TemplateProcess":
    worker = TemplateProcess()
    atexit.register(worker.end)
    return worker


class TemplateProcess:
    """The process that renders, started when it is first asked, and again after it had to be ended."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._owner = os.getpid()
        self._lock = Lock()

    def ask(self, line: str, seconds: float) -> dict[str, Any]:
        """The answer to one order. Raises TimeoutError after `seconds`, EOFError where the process ended by itself."""
        with self._lock:
            if self._process is None or self._process.poll() is not None or self._owner != os.getpid():
                self._start()
            answer: dict[str, Any] = self._exchange(line, seconds)
            return answer

    def end(self) -> None:
        """End the process, if this one has started it."""
        if self._process is not None and self._owner == os.getpid():
            self._process.kill()
            self._process.communicate()
        self._process = None

    def _start(self) -> None:
        self.end()
        self._owner = os.getpid()
        # As this process imports, so does that one; -P keeps the current folder out, which may be a stranger's.
        paths = os.pathsep.join(path for path in sys.path if path)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "vlsurgery.probes.templates.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": paths},
        )
        try:
            ready = self._exchange(None, MAX_SECONDS_TO_START) == READY
        except (TimeoutError, EOFError):
            ready = False
        if not ready:
            raise SurgeryError(
                f"the process for chat templates does not start. Try: {sys.executable} -P -m "
                "vlsurgery.probes.templates.worker, which says why."
            )

    def _exchange(self, line: str | None, seconds: float) -> Any:
        """Write a line, where there is one, and read one. Ends the process where that takes too long."""
        process = self._process
        assert process is not None  # `ask` has started it.
        assert process.stdin is not None
        assert process.stdout is not None
        late = Event()

        def stop() -> None:
            late.set()
            process.kill()

        timer = Timer(seconds, stop)
        timer.start()
        try:
            if line is not None:
                process.stdin.write(line + "\n")
                process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            timer.cancel()
        if answer:
            return json.loads(answer)
        self.end()
        raise TimeoutError if late.is_set() else EOFError
