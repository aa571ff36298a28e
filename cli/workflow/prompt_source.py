"""The prompts that the models of a case are asked: the specimen's or the package's own, and those of user's files."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlsurgery.cli.workflow.case import Case
from vlsurgery.surgery.errors import SurgeryError

if TYPE_CHECKING:
    from vlsurgery.probes.prompts import Prompt
    from vlsurgery.probes.specimens.miniature import Specimen

SEED = 0  # of the split of requests into fit, select and report


@dataclass(frozen=True)
class PromptSource:
    """Prompts by reference, loaded when they are needed.

    specimen: where the checkpoints are the built-in specimen, which has its own prompts.
    files: "FILE:KIND" -> SHA-256 of the file.
    """

    specimen: "Specimen | None"
    files: dict[str, str]

    @property
    def settings(self) -> dict[str, Any]:
        """What a step that asks prompts records: equal settings mean equal prompts."""
        asked = [[p.id, p.request, p.set, p.split, p.modality, p.text, p.answer] for p in self.prompts]
        # The digest changes when the package's own prompts do.
        prompts = {"files": self.files, "digest": hashlib.sha256(json.dumps(asked).encode()).hexdigest()}
        if not self.specimen:
            return {"prompts": {"own": "english", "seed": SEED, **prompts}}
        from vlsurgery.probes.specimens.miniature import DEMO_SEED

        seed, story = self.specimen.seed, self.specimen.story
        return {
            "prompts": {"own": "specimen", "seed": seed, **prompts},
            "specimen": {"seed": seed, "chosen": seed == DEMO_SEED, "story": story},
        }

    @cached_property
    def prompts(self) -> "list[Prompt]":
        """All prompts. A file replaces the package's own prompts of the sets that it has, and of the requests that it
        asks."""
        return [*self._kept, *self._given]

    @property
    def notes(self) -> list[str]:
        """What to know of results that were measured with both files and the package's own prompts."""
        notes = []
        from_files, from_package = ({prompt.set for prompt in prompts} for prompts in (self._given, self._kept))
        left_out = {prompt.request for prompt in self._own if prompt.set not in from_files}
        left_out -= {prompt.request for prompt in self._kept}
        if left_out:
            notes.append(f"{len(left_out)} of the package's own requests are left out: a prompt file asks them too")
        for side, other in (("harmful", "harmless"), ("harmless", "harmful")):
            if side not in from_files or other not in from_package:
                continue
            twins = "harmless twins" if other == "harmless" else "harmful requests of the same kind"
            notes.append(
                f"{side} prompts are from a file and {other} ones from the package: directions may then also tell "
                f"topic and style apart; give {twins} with FILE:{other}"
            )
        return notes

    @cached_property
    def _given(self) -> "list[Prompt]":
        from vlsurgery.probes.prompts import load_prompts

        return [prompt for spec in self.files for prompt in load_prompts(spec, SEED)]

    @cached_property
    def _kept(self) -> "list[Prompt]":
        """The package's own prompts of the sets that no file has, less the requests that a file asks."""
        from vlsurgery.probes.prompts import without_repeats

        given = {prompt.set for prompt in self._given}
        return [prompt for prompt in without_repeats(self._own, self._given) if prompt.set not in given]

    @cached_property
    def _own(self) -> "list[Prompt]":
        if self.specimen:
            from vlsurgery.probes.specimens.miniature import prompts

            return prompts(self.specimen.seed)
        from vlsurgery.probes.prompts import english_prompts

        return english_prompts(SEED)


def prompt_source_of(case: Case, specs: Sequence[str] | None) -> PromptSource:
    """The prompts of a case. specs: the user's files; None for those of the case's last probe.

    Raises SurgeryError where a file can't be read.
    """
    from vlsurgery.probes.specimens.miniature import specimen_of

    if specs is None:
        recorded = case.settings_of("probe") or {}
        specs = list(recorded.get("prompts", {}).get("files", {}))
    return PromptSource(specimen_of(case.checkpoints["base"].path), dict(_fingerprint(spec) for spec in specs))


def _fingerprint(spec: str) -> tuple[str, str]:
    """The specification with an absolute path, and the SHA-256 of its file."""
    name, colon, kind = spec.rpartition(":")
    if not colon or not name:
        raise SurgeryError(f"--prompts {spec}: expected FILE:KIND, for example requests.txt:harmful")
    path = Path(name).expanduser().absolute()
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise SurgeryError(
            f"{path}: can't read these prompts ({error.strerror}). Give the file with --prompts."
        ) from error
    return f"{path}:{kind}", digest
