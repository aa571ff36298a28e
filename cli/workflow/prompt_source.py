"""Which prompts a case is asked: the specimen's own, or the package's English ones, or the user's files."""

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

SEED = 0  # by which requests are split into fit, select and report


@dataclass(frozen=True)
class PromptSource:
    """Prompts by reference: cheap to compare, loaded when needed.

    specimen: set where the checkpoints are the built-in specimen, which brings its own prompts.
    files: "FILE:KIND" -> SHA-256 of the file.
    """

    specimen: "Specimen | None"
    files: dict[str, str]

    @property
    def settings(self) -> dict[str, Any]:
        """What a step that asks prompts records: equal settings, equal prompts."""
        own = "specimen" if self.specimen else "english"
        seed = self.specimen.seed if self.specimen else SEED
        prompts = {"own": own, "seed": seed, "files": self.files, "digest": self._digest()}
        settings: dict[str, Any] = {"prompts": prompts}
        if self.specimen:
            from vlsurgery.probes.specimens.miniature import DEMO_SEED

            chosen = self.specimen.seed == DEMO_SEED
            settings["specimen"] = {"seed": self.specimen.seed, "chosen": chosen, "story": self.specimen.story}
        return settings

    @cached_property
    def prompts(self) -> "list[Prompt]":
        """All prompts; a file takes the place of the package's own prompts of every set that it has, and of every
        request that it asks."""
        return [*self._kept, *self._given]

    @property
    def notes(self) -> list[str]:
        """What a reader of the results must know of how files and the package's own prompts go together."""
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

    def _digest(self) -> str:
        """What is asked, in one word: it changes when the package's own prompts do."""
        asked = [[p.id, p.request, p.set, p.split, p.modality, p.text, p.answer] for p in self.prompts]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()

    @cached_property
    def _own(self) -> "list[Prompt]":
        if self.specimen:
            from vlsurgery.probes.specimens.miniature import prompts

            return prompts(self.specimen.seed)
        from vlsurgery.probes.prompts import english_prompts

        return english_prompts(SEED)


def prompt_source_of(case: Case, specs: Sequence[str] | None) -> PromptSource:
    """The prompts for a case. specs: the user's files; `None` means those of the case's last probe.

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
