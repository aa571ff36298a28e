"""A merge's recipe and model card as others may read them: without the places of one machine."""

import re
from collections.abc import Mapping
from typing import Any, Final

import yaml

from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.merge.hub_parents import hub_parts
from vlsurgery.surgery.merge.model_card import parents_table
from vlsurgery.surgery.merge.recipe import Recipe

PARENTS: Final = "## Parents"
LIMITS: Final = "## Limits"
NOTES: Final = "## Notes"

_FRONT: Final = re.compile(r"---\n.*?^---\n", re.DOTALL | re.MULTILINE)
# An absolute path, of this system or of Windows, or a URL in a store, at the beginning of a word.
_PATH: Final = re.compile(
    r"(?<![\w/.:~])(?:~?/[\w.+@~-]+/[^\s|`]*|[A-Za-z]:\\[^\s|`]+|(?!https?:)[A-Za-z][\w+.-]+://[^\s|`]+)"
)
_RESOLVED: Final = (
    "A parent on the Hub is named with the commit that was merged. One that is not is named by its role: its identity "
    "tells whether a checkpoint is the same one."
)


def published_recipe(recipe: Recipe) -> Recipe:
    """The same order, in which every parent is named by its id and commit on the Hub, or else by its role.

    A part that is not on the Hub is the role's own name, and an adapter's `ROLE-adapter`: no name of the Hub, so that
    nothing is fetched for it. Identities and contents stay.
    """
    refs = {
        role: ref.model_copy(update={"path": _published_place(role, ref.path)})
        for role, ref in recipe.checkpoints.items()
    }
    return recipe.model_copy(update={"checkpoints": refs})


def _published_place(role: str, path: str) -> str:
    name = re.sub(r"[^\w.-]", "-", role)
    local = (name, f"{name}-adapter")
    return "+".join(local[min(at, 1)] if part is None else part.ref for at, part in enumerate(hub_parts(path)))


def published_card(written: str, recipe: Recipe, front: Mapping[str, Any], behaviour: str) -> str:
    """The card of a merge for others.

    written: the card that the merge wrote. recipe: as `published_recipe` gives it. front: the metadata that the Hub
    reads. behaviour: Markdown on what the merge does, in place of the section that says that nothing was measured.
    Notes that name a file of this machine are left out, and counted.

    Raises CheckpointError where `written` is not the card of a merge of ours.
    """
    head = _FRONT.match(written)
    first, *sections = re.split(r"^(?=## )", written[head.end() :], flags=re.MULTILINE) if head else [""]
    titles = [section.split("\n", 1)[0] for section in sections]
    if head is None or not {PARENTS, LIMITS} <= set(titles):
        raise CheckpointError(
            f"README.md: not the card of a merge of ours: it has no metadata, or no {PARENTS[3:]} and {LIMITS[3:]}. "
            "Merge again."
        )
    replaced = {
        PARENTS: f"{PARENTS}\n\n{parents_table(recipe)}\n\n{_RESOLVED}\n\n",
        LIMITS: f"## Behaviour\n\n{behaviour}\n\n",
    }
    body = "".join(
        _without_paths(section) if title == NOTES else replaced.get(title, section)
        for title, section in zip(titles, sections, strict=True)
    )
    metadata = yaml.safe_dump(dict(front), sort_keys=False, allow_unicode=True, width=10_000)
    return f"---\n{metadata}---\n{first}{body}"


def paths_in(text: str) -> list[str]:
    """The absolute paths and the URLs of stores in a text, each once."""
    return list(dict.fromkeys(_PATH.findall(text)))


def _without_paths(notes: str) -> str:
    kept = [line for line in notes.splitlines() if not paths_in(line)]
    gone = len(notes.splitlines()) - len(kept)
    told = [f"- {gone} more about files of the machine that it was made on are left out.", ""] if gone else []
    return "\n".join([*kept, *told]) + "\n"
