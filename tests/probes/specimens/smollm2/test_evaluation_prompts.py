"""The real trio's prompts: a sample of the package's, the same every time, split as the package splits them."""

from collections import Counter
from pathlib import Path

from vlsurgery.probes.prompts import Prompt, english_prompts, prompts_digest
from vlsurgery.probes.prompts.english import REPORT_WRAPPERS
from vlsurgery.probes.specimens.smollm2 import RealTrio, TrioConfig, mark, prompts, texts, trio_of
from vlsurgery.probes.specimens.smollm2.evaluation_prompts import SIZES

SAMPLE = prompts()


def of(set_: str, modality: str, split: str) -> list[Prompt]:
    return [p for p in SAMPLE if (p.set, p.modality, p.split) == (set_, modality, split)]


def test_they_are_the_same_every_time() -> None:
    assert prompts_digest(SAMPLE) == prompts_digest(prompts())
    assert max(Counter(prompt.id for prompt in SAMPLE).values()) == 1


def test_every_set_has_its_size_in_every_split() -> None:
    for split, sizes in SIZES.items():
        for modality in ("text", "benign"):
            for name in ("harmful", "jailbroken", "harmless", "borderline"):
                assert len(of(name, modality, split)) == getattr(sizes, name), (name, modality, split)
        assert len(of("harmful", "blank", split)) == len(of("harmful", "noise", split)) == sizes.controls
        assert len(of("capability", "text", split)) == sizes.words
        assert len(of("capability", "own", split)) == sizes.pictured
        assert len(of("capability", "blank", split)) == sizes.blank


def test_report_rests_on_enough_requests_for_a_claim() -> None:
    for name, modality in {(p.set, p.modality) for p in SAMPLE if p.split == "report"}:
        assert len({p.request for p in of(name, modality, "report")}) >= 30, (name, modality)


def test_words_of_requests_are_the_package_s_own_and_in_its_splits() -> None:
    package = {prompt.id: prompt for prompt in english_prompts()}
    for prompt in SAMPLE:
        if prompt.set != "capability" or prompt.modality == "text":
            assert prompt == package[prompt.id]
    held_out = [each.partition("{}")[0] or each.partition("{}")[2] for each in REPORT_WRAPPERS.values()]
    wrapped = [p for p in SAMPLE if p.set == "jailbroken" and any(words in p.text for words in held_out)]
    assert {prompt.split for prompt in wrapped} == {"report"}


def test_twins_and_jailbreaks_stay_with_their_request() -> None:
    splits: dict[str, set[str]] = {}
    for prompt in SAMPLE:
        splits.setdefault(prompt.request, set()).add(prompt.split)
    assert all(len(each) == 1 for each in splits.values())
    assert {p.request for p in of("harmless", "text", "report")} <= {p.request for p in of("harmful", "text", "report")}


def test_no_scan_was_trained_on_and_none_is_asked_twice() -> None:
    scans = [int(p.request.partition("-")[2]) for p in SAMPLE if p.request.startswith("digit") and p.modality == "own"]
    assert len(scans) == len(set(scans)) > 30
    assert min(scans) >= TrioConfig().digits


def test_questions_have_answers_and_blank_ones_the_same() -> None:
    for prompt in SAMPLE:
        assert (prompt.answer is not None) == (prompt.set == "capability")
    own = {p.request: p for p in of("capability", "own", "report")}
    for blank in of("capability", "blank", "report"):
        assert (blank.text, blank.answer) == (own[blank.request].text, own[blank.request].answer)
        assert len(set(blank.image.tobytes())) == 1
    asked = Counter(p.text for p in own.values())
    assert len(asked) >= 4


def test_no_request_was_trained_on() -> None:
    trained = {text.casefold() for text in texts.answerable()}
    assert not trained & {p.text.casefold() for p in SAMPLE if p.set != "capability"}


def test_a_checkpoint_knows_its_trio(tmp_path: Path) -> None:
    made = {"base": "base", "adapted": "adaptation/step-80", "mild": "safety/step-8", "safety": "safety/step-24"}
    places = (*made.values(), "preference", "mixed")
    for place in (*places, "adaptation/step-5", "tower"):
        (tmp_path / place).mkdir(parents=True)
    trio = RealTrio(root=tmp_path, trajectory={}, seed=3, story={}, **{r: tmp_path / p for r, p in made.items()})
    assert trio_of(trio.base) is None
    told = mark(trio)
    assert "seed 3" in told.told
    assert "SmolLM2-135M-Instruct" in told.told
    assert all(trio_of(tmp_path / place) == told for place in places)
    assert trio_of(tmp_path / "adaptation" / "step-5") is None
    assert trio_of(tmp_path / "tower") is None
