"""What can be wrong with an endpoint, its key, its models and its replies."""

from vlsurgery.surgery.errors import SurgeryError


class EndpointError(SurgeryError):
    """An endpoint can't be reached, does not take the key, has no such model, or replies what can't be used."""


class RequestRefused(EndpointError):
    """The server does not take one request, and won't if it is sent again.

    status: of its reply. said: its words; code: its own word for the fault, where it gives one.
    """

    def __init__(self, line: str, status: int, said: str, code: str) -> None:
        super().__init__(line)
        self.status = status
        self.said = said
        self.code = code


class TransientFault(Exception):
    """What may go away by itself. Never leaves the client.

    status: of the reply; None where there was none. wait: seconds that the server asks to wait; None where it does not
    say.
    """

    def __init__(self, what: str, status: int | None = None, wait: float | None = None) -> None:
        super().__init__(what)
        self.status = status
        self.wait = wait
