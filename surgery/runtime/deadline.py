"""Calls that may never come back, waited for no longer than a while."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import TypeVar

Result = TypeVar("Result")


class DeadlinePassed(Exception):
    """A call did not come back in time; its thread is left behind."""


def within(seconds: float, call: Callable[[], Result]) -> Result:
    """What `call` returns or raises, if it does so in that time; else raises DeadlinePassed.

    The call runs in a thread of its own, which keeps no program from ending.
    """
    outcome: Future[Result] = Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001  (handed to the thread that waits)
            outcome.set_exception(error)

    threading.Thread(target=copy_context().run, args=(work,), daemon=True).start()
    try:
        return outcome.result(seconds)
    except TimeoutError:
        if outcome.done():
            return outcome.result()  # it came at the last moment, or the call has raised this itself
        raise DeadlinePassed from None
