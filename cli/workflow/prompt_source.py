"""The prompts that the models of a case are asked: the specimen's or the package's own, and those of user's files."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlsurgery.cli.workflow.case import Case
from vlsurgery.cli.workflow.sample import ALL, Sample, sampled, sizes_told

if TYPE_CHECKING:
    from vlsurgery.probes.prompts import Prompt, PromptFiles
    from vlsurgery.probes.specimens.miniature import Specimen
    from vlsurgery.probes.specimens.smollm2 import MarkedTrio

SEED = 0  # of the split of requests into fit, select and report
CLAIM_REQUESTS = 30  # requests below which nothing is said in words
COMPARED = ("harmful", "jailbroken", "harmless", "borderline")  # sets that results set against one another


@dataclass(frozen=True)
class PromptSource:
    """Prompts by reference, loaded when they are needed.

    specimen: where the checkpoints are the built-in specimen, which has its own prompts.
    trio: where they are the built-in real trio, which is asked a sample of the package's own.
    sample: how many of them all are asked.
    files: "FILE:KIND" -> SHA-256 of the file. images: a folder of ordinary pictures in place of the package's.
    whole: whether all prompts of the files are measured, because nothing is fitted to any of them.
    """

    specimen: "Specimen | None"
    files: dict[str, str]
    images: Path | None = None
    whole: bool = False
    trio: "MarkedTrio | None" = None
    sample: Sample = ALL

    @property
    def settings(self) -> dict[str, Any]:
        """What a step that asks prompts records: equal settings mean equal prompts."""
        images = str(self.images) if self.images else None
        # The digest changes when the package's own prompts do, and with any picture.
        prompts = {"files": self.files, "images": images, "digest": self.digest, **self.sample.settings}
        if self.trio:
            trio = {"seed": self.trio.seed, "told": self.trio.told}
            return {"prompts": {"own": "smollm2", "seed": SEED, **prompts}, "trio": trio}
        if not self.specimen:
            return {"prompts": {"own": "english", "seed": SEED, **prompts}}
        from vlsurgery.probes.specimens.miniature import DEMO_SEED

        seed, story = self.specimen.seed, self.specimen.story
        return {
            "prompts": {"own": "specimen", "seed": seed, **prompts},
            "specimen": {"seed": seed, "chosen": seed == DEMO_SEED, "story": story},
        }

    @cached_property
    def digest(self) -> str:
        """What identifies the prompts, their pictures included; see `prompts_digest`."""
        from vlsurgery.probes.prompts import prompts_digest

        return prompts_digest(self.prompts)

    @cached_property
    def prompts(self) -> "list[Prompt]":
        """The prompts that are asked: those of the sample."""
        return self.every if self.sample.is_full else sampled(self.every, self.sample.share, SEED)

    @cached_property
    def every(self) -> "list[Prompt]":
        """All prompts that there are. A file replaces the package's own prompts of the sets that it has, and of the
        requests that it asks."""
        return [*self._kept, *self._given.prompts]

    @cached_property
    def notes(self) -> list[str]:
        """What to know of results that were measured on these prompts."""
        found = [*self._given.notes, *self._left_out(), *self._two_sources(), *self._too_few(), *self._unseen()]
        found += self.budget_notes
        if self.images:
            found.append(f"ordinary pictures are those of the folder {self.images}")
        return found

    @property
    def budget_notes(self) -> list[str]:
        """What a sample that is not all of them can tell."""
        told = [] if self.sample.is_full else sizes_told(self.prompts, self.every)
        return [f"--budget {self.sample.budget}: {line}" for line in told]

    def _left_out(self) -> Iterator[str]:
        replaced = _sets(self._given.prompts)
        left_out = {prompt.request for prompt in self._own if prompt.set not in replaced}
        left_out -= {prompt.request for prompt in self._kept}
        if left_out:
            yield f"{len(left_out)} of the package's own requests are left out: a prompt file asks them too"

    def _two_sources(self) -> Iterator[str]:
        """Sets that are compared with one another, where some are from files and some from the package."""
        mine, others = (
            [name for name in COMPARED if name in _sets(each)] for each in (self._given.prompts, self._kept)
        )
        if mine and others:
            twins = " (twins of your requests)" if "harmful" in mine and "harmless" in others else ""
            asked = [f"--prompts FILE:{name}{twins if name == 'harmless' else ''}" for name in others]
            yield (
                f"{_listed(mine)} prompts are from files and {_listed(others)} ones from the package: what tells them "
                f"apart may also be topic and style; give your own with {_listed(asked)}"
            )

    def _too_few(self) -> Iterator[str]:
        """Sets of the user's that are too small for a claim. Rates are measured on `report` alone."""
        for name in sorted(_sets(self._given.prompts)):
            asked = {prompt.request: prompt.split for prompt in self.prompts if prompt.set == name}
            shown = sum(split == "report" for split in asked.values())
            if shown < CLAIM_REQUESTS:
                rest = "" if shown == len(asked) else ", the others serve fitting and selection"
                yield (
                    f"{name}: of {_counted(len(asked), 'request')} in the files {shown} are measured{rest}; below "
                    f"{CLAIM_REQUESTS} measured requests no claim is made"
                )

    def _unseen(self) -> Iterator[str]:
        """Sets that a model of text can't be asked, or only in part."""
        for name in sorted(_sets(self._given.prompts)):
            asked = [prompt for prompt in self._given.prompts if prompt.set == name]
            pictured = {prompt.request for prompt in asked if prompt.modality == "own"}
            alone = pictured - {prompt.request for prompt in asked if prompt.modality == "text"}
            if alone:
                yield (
                    f"{name}: {_counted(len(alone), 'request')} of {len({p.request for p in asked})} come only with "
                    "pictures of their own: a base that does not see can't be asked them; its graft can"
                )

    @cached_property
    def _given(self) -> "PromptFiles":
        from vlsurgery.probes.prompts import load_prompt_files

        found = load_prompt_files(list(self.files), SEED, self.images)
        return replace(found, prompts=[replace(p, split="report") for p in found.prompts]) if self.whole else found

    @cached_property
    def _kept(self) -> "list[Prompt]":
        """The package's own prompts of the sets that no file has, less the requests that a file asks."""
        from vlsurgery.probes.prompts import without_repeats

        given = self._given.prompts
        replaced = _sets(given)
        return [prompt for prompt in without_repeats(self._own, given) if prompt.set not in replaced]

    @cached_property
    def _own(self) -> "list[Prompt]":
        from vlsurgery.probes.prompts import album_of, english_prompts, with_ordinary_pictures

        # Specimens are made by torch, without which the package's own prompts can be asked of what a server runs.
        if self.trio:
            from vlsurgery.probes.specimens import smollm2

            own = smollm2.prompts()
        elif self.specimen:
            from vlsurgery.probes.specimens import miniature

            own = miniature.prompts(self.specimen.seed)
        else:
            own = english_prompts(SEED)
        return with_ordinary_pictures(own, album_of(self.images), SEED) if self.images else own


def prompt_source_of(
    case: Case, specs: Sequence[str] | None, images: Path | None = None, sample: Sample | None = None
) -> PromptSource:
    """The prompts of a case. specs: the user's files; images: a folder of ordinary pictures; sample: how many are
    asked; None of each for that of the case's last probe, of a sample else for that of its last evaluation.

    Raises SurgeryError where a file can't be read.
    """
    from vlsurgery.probes.specimens import miniature, smollm2

    recorded = (case.settings_of("probe") or {}).get("prompts", {})
    if specs is None:
        specs = list(recorded.get("files", {}))
    if images is None and recorded.get("images"):
        images = Path(recorded["images"])
    base = case.checkpoints["base"].path
    found = prompt_source(miniature.specimen_of(base), specs, images, trio=smollm2.trio_of(base))
    if sample is None:
        sample = Sample.recorded(recorded or (case.settings_of("evaluate") or {}).get("prompts", {}))
    return replace(found, sample=sample)


def prompt_source(
    specimen: "Specimen | None",
    specs: Sequence[str],
    images: Path | None,
    whole: bool = False,
    trio: "MarkedTrio | None" = None,
) -> PromptSource:
    """The prompts of files, beside those of the specimen or of the package; arguments as in PromptSource.

    Raises SurgeryError where a file can't be read.
    """
    # Sorted, as the case file has them: their order changes nothing.
    files = dict(sorted(_fingerprint(spec) for spec in specs))
    return PromptSource(specimen, files, images and images.expanduser().absolute(), whole, trio)


def _fingerprint(spec: str) -> tuple[str, str]:
    """The specification with an absolute path, and the SHA-256 of its file."""
    from vlsurgery.probes.prompts import file_digest, split_spec

    path, kind = split_spec(spec)
    return f"{path.absolute()}:{kind}", file_digest(path.absolute())


def _sets(prompts: "Iterable[Prompt]") -> set[str]:
    return {prompt.set for prompt in prompts}


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
