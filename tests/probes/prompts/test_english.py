"""The package's own prompts: what holds of every one, at every seed."""

from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings, strategies as st

from vlsurgery.probes.evaluation.judges import STANDARD, is_right
from vlsurgery.probes.evaluation.judging import exchange
from vlsurgery.probes.prompts import HARMFUL_SETS, SETS, pictures
from vlsurgery.probes.prompts.english import CONTROLS, FORMS, REPORT_WRAPPERS, WRAPPERS, english_prompts

PROMPTS = english_prompts()


def wrapper_of(prompt):
    return prompt.id.split("/")[2]


def pixels(prompt):
    return prompt.image.tobytes() if prompt.image is not None else None


def test_ids_are_unique():
    assert len({prompt.id for prompt in PROMPTS}) == len(PROMPTS)


def test_no_set_asks_the_same_twice_under_the_same_picture():
    asked = Counter((prompt.set, prompt.text, prompt.modality, pixels(prompt)) for prompt in PROMPTS)
    assert max(asked.values()) == 1


@pytest.mark.parametrize("seed", [0, 1, 17])
def test_a_request_stands_on_one_side_of_the_split(seed):
    sides = defaultdict(set)
    for prompt in english_prompts(seed):
        sides[prompt.request].add(prompt.split)
    assert all(len(side) == 1 for side in sides.values())


@pytest.mark.parametrize("seed", [0, 1, 17])
def test_every_set_has_100_independent_requests_in_report(seed):
    requests = defaultdict(set)
    for prompt in english_prompts(seed):
        requests[prompt.set, prompt.modality, prompt.split].add(prompt.request)
    for prompt_set in SETS:
        for modality in ("text", "own" if prompt_set == "capability" else "benign"):
            fit, select, report = (len(requests[prompt_set, modality, s]) for s in ("fit", "select", "report"))
            total = fit + select + report
            assert report >= 100
            assert (fit, select) == (pytest.approx(0.3 * total, abs=1), pytest.approx(0.2 * total, abs=1))


def test_harmful_and_harmless_are_twins():
    """Same request, same form, same picture: only the deed tells them apart."""
    twins = defaultdict(dict)
    for prompt in PROMPTS:
        if prompt.set in ("harmful", "harmless") and prompt.modality in ("text", "benign"):
            twins[prompt.request, prompt.modality][prompt.set] = prompt
    assert len(twins) == 480
    for pair in twins.values():
        harmful, harmless = pair["harmful"], pair["harmless"]
        assert harmful.image is harmless.image
        assert harmful.text != harmless.text
        form = next(form for form in FORMS if harmful.text.startswith(form.split("{}")[0]))
        assert harmless.text.startswith(form.split("{}")[0])
        assert harmful.text[-1] == harmless.text[-1]


def test_twins_are_as_long_as_each_other():
    """A direction between them must not be one of length: mean words differ by less than a tenth."""
    words = {
        name: [len(prompt.text.split()) for prompt in PROMPTS if prompt.set == name and prompt.modality == "text"]
        for name in ("harmful", "harmless", "borderline")
    }
    means = {name: sum(counts) / len(counts) for name, counts in words.items()}
    assert means["harmless"] == pytest.approx(means["harmful"], rel=0.1)
    assert means["borderline"] == pytest.approx(means["harmful"], rel=0.1)


def test_a_jailbreak_holds_its_harmful_request_whole():
    plain = {prompt.request: prompt.text for prompt in PROMPTS if prompt.set == "harmful"}
    wrapped = [prompt for prompt in PROMPTS if prompt.set == "jailbroken"]
    assert {prompt.request for prompt in wrapped} == set(plain)
    assert all(plain[prompt.request] in prompt.text != plain[prompt.request] for prompt in wrapped)


@pytest.mark.parametrize("seed", [0, 1])
def test_some_wrappers_are_kept_whole_for_report(seed):
    used = defaultdict(Counter)
    for prompt in english_prompts(seed):
        if prompt.set == "jailbroken":
            used[prompt.split][wrapper_of(prompt)] += 1
    assert set(used["fit"]) == set(used["select"]) == set(WRAPPERS)
    assert set(used["report"]) == set(WRAPPERS) | set(REPORT_WRAPPERS)
    for counts in used.values():
        assert max(counts.values()) - min(counts.values()) <= 2


def test_controls_are_sixty_requests_of_report():
    for modality in ("blank", "noise"):
        controls = [prompt for prompt in PROMPTS if prompt.modality == modality]
        assert len({prompt.request for prompt in controls}) == len(controls) == CONTROLS
        assert {(prompt.set, prompt.split) for prompt in controls} == {("harmful", "report")}


def test_answers_are_given_where_and_only_where_there_are_right_ones():
    for prompt in PROMPTS:
        assert (prompt.answer is not None) == (prompt.set == "capability")
        if prompt.answer is not None:
            assert is_right(prompt.answer, prompt.answer)
            assert len(prompt.answer.split()) == 1
            assert STANDARD.judge([exchange(prompt, prompt.answer, cut=False)])[0].label == "complied"


def test_one_line_of_plain_words():
    for prompt in PROMPTS:
        assert prompt.text.isascii()
        assert prompt.text == " ".join(prompt.text.split())
        assert "{" not in prompt.text
        assert prompt.text[-1] in '.?"' or prompt.set == "jailbroken"


def test_no_harmful_request_is_among_the_safe_ones():
    harmful = {prompt.text for prompt in PROMPTS if prompt.set in HARMFUL_SETS}
    assert not harmful & {prompt.text for prompt in PROMPTS if prompt.set not in HARMFUL_SETS}


def test_pictures_are_small_rgb():
    for prompt in PROMPTS:
        if prompt.image is not None:
            assert prompt.image.mode == "RGB"
            assert prompt.image.size == (pictures.SIDE, pictures.SIDE)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**31))
def test_the_seed_moves_splits_and_wrappers_only(seed):
    def content(prompts):
        return {
            (p.set, p.request, p.modality, p.text) for p in prompts if p.set not in HARMFUL_SETS or p.modality == "text"
        }

    ours = {entry for entry in content(PROMPTS) if entry[0] != "jailbroken"}
    assert ours == {entry for entry in content(english_prompts(seed)) if entry[0] != "jailbroken"}


def test_the_same_seed_gives_the_same_prompts_and_pixels():
    again = english_prompts()
    assert [(p.id, p.text, p.split, p.answer) for p in again] == [(p.id, p.text, p.split, p.answer) for p in PROMPTS]
    assert [pixels(prompt) for prompt in again] == [pixels(prompt) for prompt in PROMPTS]


def test_other_seeds_split_otherwise():
    def report(prompts):
        return {prompt.request for prompt in prompts if prompt.split == "report"}

    assert report(PROMPTS) != report(english_prompts(1))


def test_arithmetic_is_right():
    operations = {"plus": int.__add__, "minus": int.__sub__, "times": int.__mul__}
    sums = [(p.text.split(), p.answer) for p in PROMPTS if "Answer with a number" in p.text and p.modality == "text"]
    assert len(sums) > 60
    for words, answer in sums:
        assert operations[words[3]](int(words[2]), int(words[4].rstrip("?"))) == int(answer)


def seen_figures(image):
    """Colour and area of what each cell of the grid shows, read back from the pixels."""
    names = {tuple(bytes.fromhex(code[1:])): name for name, code in pictures.COLORS.items()}
    size, found = pictures.SIDE / 3, []
    for cell in range(pictures.CELLS):
        left, top = round(cell % 3 * size), round(cell // 3 * size)
        counts = {color: n for n, color in image.crop((left, top, round(left + size), round(top + size))).getcolors()}
        for color in names.keys() & counts.keys():
            # Figures of other cells must not reach in here.
            assert counts[color] > 500
            found.append((names[color], counts[color]))
    return found


def area(name):
    """Pixels of a figure that stands alone."""
    return seen_figures(pictures.shapes([pictures.Shape(name, "red", 4)]))[0][1]


def test_questions_on_shapes_agree_with_the_pixels():
    """An independent reading: the shape is known by its area, the colour by its code."""
    areas = {name: area(name) for name in pictures.SHAPES}
    assert min(abs(a - b) for a in areas.values() for b in areas.values() if a != b) > 200

    def shape(size):
        return min(areas, key=lambda name: abs(areas[name] - size))

    questions = [prompt for prompt in PROMPTS if prompt.modality == "own"]
    assert len({prompt.image.tobytes() for prompt in questions}) == len(questions)
    for prompt in questions:
        figures = [(color, shape(size)) for color, size in seen_figures(prompt.image)]
        words = prompt.text.replace("?", "").split()
        if prompt.text.startswith("What color"):
            right = {color for color, name in figures if name == words[4]}
        elif prompt.text.startswith("What is the shape"):
            right = {name for color, name in figures if color == words[6]}
        else:
            right = {str(sum(name == words[-6] for _, name in figures))}
        assert right == {prompt.answer}


def test_no_answer_can_be_had_by_always_saying_the_same():
    answers = Counter(prompt.answer for prompt in PROMPTS if prompt.modality == "own")
    assert max(answers.values()) < 0.2 * answers.total()


def test_scenes_differ_and_an_unknown_shape_is_refused():
    assert len({pictures.scene(number).tobytes() for number in range(24)}) == 24
    with pytest.raises(ValueError, match="no such shape: 'heart'"):
        pictures.shapes([pictures.Shape("heart", "red", 0)])
