"""Sending a merge to the Hub. huggingface_hub makes the requests, finds the token, and skips what arrived before.

Its settings apply: HF_TOKEN, HF_ENDPOINT, HF_HOME. It is imported only here.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from vlsurgery.cli.shipping.parcel import Parcel
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.runtime.visible import visible

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# What the Hub itself puts into a new model.
HUBS_OWN: Final = (".gitattributes",)
SHOWN: Final = 4  # names of files in an error
AGAIN: Final = "Give the same command again: files that arrived are not sent a second time."


class PushError(SurgeryError):
    """A merge can't be sent to the Hub."""


@dataclass(frozen=True)
class Destination:
    """Where a merge goes. model: "org/name". private: whether a new model is. revision: a branch, made where it is
    absent; None for the main one. as_pull_request: propose the change to a model that is there."""

    model: str
    private: bool = False
    revision: str | None = None
    as_pull_request: bool = False


@dataclass(frozen=True)
class Pushed:
    """What a push left on the Hub. commit: its hash. url: of the commit, or of the pull request."""

    commit: str
    url: str


def token_found() -> str | None:
    """The token that huggingface_hub finds: in the environment, or where `hf auth login` put it."""
    from huggingface_hub import get_token

    return get_token()


@contextmanager
def quiet_uploads(quiet: bool) -> Iterator[None]:
    """Keep huggingface_hub's bars off the screen where `quiet`; afterwards they are as they were."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    change = quiet and not are_progress_bars_disabled()
    if change:
        disable_progress_bars()
    try:
        yield
    finally:
        if change:
            enable_progress_bars()


def send(parcel: Parcel, to: Destination, message: str) -> Pushed:
    """Send a parcel to the Hub as one commit, and compare what arrived with what was sent.

    Raises PushError that says what is wrong and what to do: no token, no right to write there, other files in the
    model, a model that is public where a private one was asked for, no network.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    if token_found() is None:
        raise PushError(f"{to.model}: no token. Log in (`hf auth login`) or set HF_TOKEN; it needs the right to write.")
    api = HfApi()
    with _faults(to.model):
        _prepare(api, parcel, to)
        operations = [
            CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
            for name, content in parcel.files.items()
        ]
        made = api.create_commit(
            to.model,
            operations,
            commit_message=message,
            revision=to.revision,
            create_pr=to.as_pull_request,
        )
        _check_arrived(api, parcel, to.model, made.oid)
    return Pushed(made.oid, made.pr_url or made.commit_url)


def _prepare(api: "HfApi", parcel: Parcel, to: Destination) -> None:
    """Make the model and the branch where they are absent. Raises PushError for a model that holds something else."""
    there = _existing(api, to.model)
    if there is None:
        if to.as_pull_request:
            raise PushError(f"{to.model}: no such model, so none to propose a change to. Leave --create-pr out.")
        api.create_repo(to.model, private=to.private or None)  # else as the organisation has it
    elif to.private and not there.private:
        raise PushError(
            f"{to.model}: is there already, and public. Make it private on its page, or give another name; nothing was "
            "sent."
        )
    else:
        strangers = sorted({file.rfilename for file in there.siblings or ()} - {*parcel.files, *HUBS_OWN})
        if strangers:
            more = f" and {len(strangers) - SHOWN} more" if len(strangers) > SHOWN else ""
            raise PushError(
                f"{to.model}: the name is taken: the model holds {', '.join(strangers[:SHOWN])}{more}, which this "
                "merge does not have. Give another name, or remove these files first; nothing was sent."
            )
    if to.revision is not None:
        api.create_branch(to.model, branch=to.revision, exist_ok=True)


def _existing(api: "HfApi", model: str) -> Any:
    """What the Hub says of a model; None where there is none that this token may see."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return api.model_info(model)
    except RepositoryNotFoundError as error:
        if _status(error) == 404:
            return None
        raise


def _check_arrived(api: "HfApi", parcel: Parcel, model: str, commit: str) -> None:
    """Compare names, and the SHA-256 of large files, with what the Hub lists. Raises PushError where one differs."""
    found = api.model_info(model, revision=commit, files_metadata=True)
    listed = {file.rfilename: file for file in found.siblings or ()}
    wrong = [name for name in parcel.files if name not in listed]
    for name, file in listed.items():
        if name in parcel.digests and file.lfs is not None and file.lfs.sha256 != parcel.digests[name]:
            wrong.append(name)
    if wrong:
        raise PushError(
            f"{model}: after the push, {', '.join(sorted(wrong)[:SHOWN])} is absent there or has other bytes than were "
            "checked. Look at the model's .gitignore, leave the merge alone while it is sent, and push again."
        )


@contextmanager
def _faults(model: str) -> Iterator[None]:
    """Turn errors of requests to the Hub into a PushError that says what to do."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    # OSError, and the errors of whichever HTTP library is in use; a failed upload of a file is a RuntimeError.
    transport = [base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)]
    transport_errors: tuple[type[Exception], ...] = (*transport, RuntimeError)
    try:
        yield
    except PushError:
        raise
    except OfflineModeIsEnabled as error:
        raise PushError(f"{model}: HF_HUB_OFFLINE is set, so nothing can be sent. Unset it.") from error
    except HFValidationError as error:
        raise PushError(f"{model}: no name that the Hub takes ({_line(error)}). Write org/name.") from error
    except transport_errors as error:
        status = _status(error)
        if status is None and isinstance(error, RuntimeError) and error.__cause__ is None:
            raise
        raise PushError(f"{model}: {_advice(status, error)}") from error
    except (LookupError, TypeError, ValueError) as error:
        if _status(error) is not None:
            raise PushError(f"{model}: {_advice(_status(error), error)}") from error
        # huggingface_hub takes a reply for what it should be, and breaks where it is not.
        raise PushError(
            f"{model}: the server's reply can't be used ({type(error).__name__}: {_line(error)}). Check HF_ENDPOINT."
        ) from error


def _status(error: BaseException) -> int | None:
    """The status of the reply behind an error; None where there was none."""
    cause: BaseException | None = error
    while cause is not None and getattr(cause, "response", None) is None:
        cause = cause.__cause__
    return getattr(getattr(cause, "response", None), "status_code", None)


def _advice(status: int | None, error: BaseException) -> str:
    known: Mapping[int, str] = {
        401: "the Hub answers 401: the token is not valid. Log in again (`hf auth login`), or set another HF_TOKEN.",
        403: "the Hub answers 403: this token may not write there. Make a token with the right to write, ask to be let "
        "into the organisation, or give a name of your own.",
        404: "the Hub answers 404: no such organisation, model or branch, or none that this token may see. Check the "
        "name.",
        409: "the Hub answers 409: the name is taken, or somebody else writes there now. Give another name, or try "
        "again.",
        413: "the Hub answers 413: a file is larger than it takes. Merge into smaller shards.",
        429: f"the Hub answers 429, too many requests. Wait some minutes. {AGAIN}",
    }
    if status is not None and status in known:
        return known[status]
    if status is not None and status >= 500:
        return f"the Hub answers {status}: the server fails, not your network. {AGAIN}"
    if status is not None:
        return f"the Hub answers {status} and takes nothing ({_line(error)}). Check the name and HF_ENDPOINT."
    return f"can't be sent ({_line(error)}). {AGAIN}"


def _line(error: BaseException) -> str:
    """An error on one short line, without what stands behind addresses: it may sign a request."""
    text = re.sub(r"(https?://[^\s?]*)\?\S*", r"\1", visible(str(error)))
    return " ".join(text.split())[:200] or type(error).__name__
