"""Models on the bench: one in memory at a time, loaded when a prompt is first read with it."""

import gc
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

from vlsurgery.surgery.errors import SurgeryError

if TYPE_CHECKING:
    from vlsurgery.probes.evaluation.subjects import Subject
    from vlsurgery.probes.models import ChatModel, Loader

Made = TypeVar("Made")


@dataclass(frozen=True)
class Seat:
    """A role that a prompt can be read with. subject: gives its model, not loaded yet. absent: why it can't be loaded;
    None where it can."""

    role: str
    subject: "Callable[[], Subject]"
    absent: str | None


class ModelBench:
    """Gives one request at a time the model that it asks for, and says what it is doing meanwhile.

    doing: in words; empty where nothing is done.
    """

    def __init__(self, seats: Mapping[str, Seat], loader: "Callable[[], Loader]") -> None:
        self.seats = seats
        self.doing = ""
        self._loader = loader
        self._lock = Lock()
        self._held: tuple[str, ChatModel, ExitStack] | None = None

    @property
    def loaded(self) -> str | None:
        """The role whose model is in memory."""
        held = self._held
        return held[0] if held else None

    def use(self, role: str, work: "Callable[[ChatModel], Made]") -> Made:
        """What `work` makes of a role's model; others wait. Raises SurgeryError where the model can't be had."""
        seat = self.seats[role]
        if seat.absent is not None:
            raise SurgeryError(seat.absent)
        with self._lock:
            try:
                chat = self._chat(seat)
                self.doing = f"{role} reads and answers"
                return work(chat)
            finally:
                self.doing = ""

    def close(self) -> None:
        """Take the model out of memory."""
        held, self._held = self._held, None
        if held is not None:
            held[2].close()
        del held
        gc.collect()

    def _chat(self, seat: Seat) -> "ChatModel":
        if self._held is not None and self._held[0] == seat.role:
            return self._held[1]
        self.doing = f"loading {seat.role}"
        self.close()
        with ExitStack() as stack:
            chat, context = seat.subject().open(self._loader())
            stack.enter_context(context)
            self._held = (seat.role, chat, stack.pop_all())
        return chat
