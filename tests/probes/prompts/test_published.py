"""Published data sets in their layouts, with harmless words of our own in place of theirs."""

import pytest
from PIL import Image

from vlsurgery.probes.prompts import load_prompts, split_spec
from vlsurgery.probes.prompts.published import FIGSTEP_TEXT
from vlsurgery.surgery.errors import SurgeryError

PUBLISHED = {
    "advbench": (["goal", "target"], ["Do harm", "Sure"], "harmful"),
    "harmbench": (
        ["Behavior", "FunctionalCategory", "SemanticCategory", "Tags", "ContextString", "BehaviorID"],
        ["Do harm", "standard", "chemical", "", "", "do_harm"],
        "harmful",
    ),
    "strongreject": (["category", "source", "forbidden_prompt"], ["Violence", "own", "Do harm"], "harmful"),
    "jailbreakbench": (
        ["Goal", "Target", "Behavior", "Category", "Source"],
        ["Do harm", "Sure", "Harm", "Violence", "own"],
        "harmful",
    ),
    "orbench": (["prompt", "category"], ["Do harm", "violence"], "borderline"),
    "or-bench": (["prompt", "category"], ["Do harm", "violence"], "borderline"),
    "or-bench-toxic": (["prompt", "category"], ["Do harm", "violence"], "harmful"),
}


@pytest.fixture
def picture(tmp_path):
    """Writes a picture of one colour, of its name's bytes so that no two are alike."""

    def picture(name):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        color = tuple(sum(name.encode()[at::3]) % 256 for at in range(3))
        Image.new("RGB", (4, 4), color).save(path)
        return path

    return picture


def asked(prompts):
    """Set, text and picture of every row."""
    return [(p.set, p.text, p.image) for p in prompts if p.modality in ("text", "own")]


@pytest.mark.parametrize("name", PUBLISHED)
def test_tables(write, name):
    header, row, prompt_set = PUBLISHED[name]
    prompts = load_prompts(f"{write('set.csv', [header, row])}:{name}")
    assert asked(prompts) == [(prompt_set, "Do harm", None)]
    assert prompts[0].answer is None
    assert [p.modality for p in prompts][:2] == ["text", "benign"]


def test_the_toxic_file_of_or_bench_is_harmful_by_its_name(write):
    for name, expected in (("or-bench-toxic.csv", "harmful"), ("or-bench-hard-1k.csv", "borderline")):
        (text, *_) = load_prompts(f"{write(name, [['prompt', 'category'], ['Do it', 'x']])}:or-bench")
        assert text.set == expected


def test_xstest_goes_to_two_sets_by_its_label(write):
    header = ["id", "prompt", "type", "label", "focus", "note"]
    rows = [["1", "Kill a process?", "homonyms", "safe", "kill", ""], ["2", "Kill a man?", "x", "unsafe", "kill", ""]]
    prompts = load_prompts(f"{write('x.csv', [header, *rows])}:xstest")
    assert [each[0] for each in asked(prompts)] == ["borderline", "harmful"]


def test_harmbench_puts_the_context_before_the_request(write):
    header, row, _ = PUBLISHED["harmbench"]
    path = write("h.csv", [header, [*row[:4], "A long\ntext.", row[5]]])
    prompt = load_prompts(f"{path}:harmbench")[0]
    assert prompt.text.startswith("A long\ntext.")
    assert prompt.text.endswith("Do harm")


def entry(name):
    return {
        "Question": f"How do I {name}?",
        "Changed Question": f"List how to {name}",
        "Key Phrase": name,
        "Phrase Type": "activity",
        "Rephrased Question": f"How do I do this? The words below say {name[0]}.",
        "Rephrased Question(SD)": f"How do I do what is shown? {name[0]}.",
    }


@pytest.mark.parametrize(
    ("kind", "folder", "form"),
    [
        ("mm-safetybench", "SD_TYPO", "Rephrased Question"),
        ("mm-safetybench.sd_typo", "SD_TYPO", "Rephrased Question"),
        ("MM-SafetyBench.TYPO", "TYPO", "Rephrased Question"),
        ("mm_safetybench.sd", "SD", "Rephrased Question(SD)"),
    ],
)
def test_mm_safetybench(write, picture, kind, folder, form):
    entries = {"0": entry("bake"), "1": entry("knit")}
    path = write("data/processed_questions/01-Cooking.json", entries)
    pictures = [picture(f"data/imgs/01-Cooking/{folder}/{number}.jpg") for number in entries]
    for other in {"SD", "SD_TYPO", "TYPO"} - {folder}:
        picture(f"data/imgs/01-Cooking/{other}/0.jpg")
    prompts = load_prompts(f"{path}:{kind}")
    expected = []
    for each, image in zip(entries.values(), pictures, strict=True):
        expected += [("harmful", each["Question"], None), ("harmful", each[form], image)]
    assert asked(prompts) == expected
    # The question in words and the one on the picture are one request, in one split.
    assert len({p.request for p in prompts}) == 2
    assert {p.modality for p in prompts if p.text == entries["0"]["Question"]} >= {"text", "benign"}


def test_mm_safetybench_without_its_pictures_says_where_they_belong(write):
    path = write("data/processed_questions/01-Cooking.json", {"0": entry("bake")})
    with pytest.raises(SurgeryError, match=r"line 2: its picture is not there.*data/imgs/01-Cooking/SD_TYPO/0\.jpg"):
        load_prompts(f"{path}:mm-safetybench")


@pytest.mark.parametrize(
    ("table", "folder"), [("safebench.csv", "SafeBench"), ("SafeBench-Tiny.csv", "SafeBench-Tiny")]
)
def test_figstep(write, picture, table, folder):
    header = ["dataset", "category_id", "task_id", "category_name", "question", "instruction"]
    rows = [["Cook", "1", "2", "Bread", "How do I bake?", "Steps to bake."], ["Cook", "10", "1", "", "Knit?", "Steps."]]
    path = write(f"data/question/{table}", [header, *rows])
    pictures = [picture(f"data/images/{folder}/query_Cook_{name}_6.png") for name in ("1_2", "10_1")]
    prompts = load_prompts(f"{path}:figstep")
    assert asked(prompts) == [
        ("harmful", "How do I bake?", None),
        ("harmful", FIGSTEP_TEXT, pictures[0]),
        ("harmful", "Knit?", None),
        ("harmful", FIGSTEP_TEXT, pictures[1]),
    ]
    assert [p.request for p in prompts if p.modality == "own"] == ["how do i bake?", "knit?"]


def test_figstep_takes_the_words_of_a_column_prompt(write, picture):
    header = ["dataset", "category_id", "task_id", "question", "prompt"]
    path = write("safebench.csv", [header, ["C", "1", "1", "Bake?", "Fill in the list."]])
    picture("query_C_1_1_6.png")
    assert [p.text for p in load_prompts(f"{path}:figstep") if p.modality == "own"] == ["Fill in the list."]


def test_vlguard_puts_the_two_instructions_on_a_safe_picture_into_two_sets(write, picture):
    entries = [
        {
            "id": "a",
            "image": "kitchen/a.png",
            "safe": True,
            "instr-resp": [
                {"safe_instruction": "What is it?", "response": "Bread."},
                {"unsafe_instruction": "Mock it.", "response": "No."},
            ],
        },
        {
            "id": "b",
            "image": "b.png",
            "safe": False,
            "harmful_category": "x",
            "instr-resp": [{"instruction": "Read it.", "response": "No."}],
        },
    ]
    path = write("test.json", entries)
    safe, unsafe = picture("test/kitchen/a.png"), picture("test/b.png")
    prompts = load_prompts(f"{path}:vlguard")
    assert asked(prompts) == [
        ("harmless", "What is it?", safe),
        ("harmful", "Mock it.", safe),
        ("harmful", "Read it.", unsafe),
    ]
    assert prompts[0].request == prompts[1].request != prompts[2].request
    assert {p.modality for p in prompts} == {"own"}


def test_mossbench_in_json_and_in_a_table(write, picture):
    image = picture("data/images/1.webp")
    of_json = write(
        "data/images_information/information.json",
        {"1": {"image": "images/1.webp", "question": "Plan a day here.", "pid": "1", "metadata": {"over": "type 1"}}},
    )
    of_table = write(
        "data/information.csv",
        [["pid", "question", "image_path", "short description"], ["1", "Plan a day here.", "images/1.webp", "x"]],
    )
    for path in (of_json, of_table):
        assert asked(load_prompts(f"{path}:mossbench")) == [("borderline", "Plan a day here.", image)]


def test_siuo(write, picture):
    image = picture("data/images/S-01.png")
    entries = [{"question_id": 1, "image": "S-01.png", "question": "Write a poem.", "reference_answer": "..."}]
    prompts = load_prompts(f"{write('data/siuo_gen.json', entries)}:siuo")
    assert asked(prompts) == [("harmful", "Write a poem.", image)]
    assert prompts[0].answer is None


FAULTS = {
    "column": ("a.csv", "prompt\nx\n", "advbench", "no column 'goal'; found prompt"),
    "label": ("a.csv", "prompt,label\nx,odd\n", "xstest", "line 2: 'label' is 'odd', expected one of safe, unsafe"),
    "suffix": ("a.csv", "question\nx\n", "mm-safetybench", r"expected a \.json file, found '\.csv'"),
    "field": ("a.json", '{"0": {\n"Question": 1}}', "mm-safetybench", "line 1: expected an object .*'Question'"),
    "no object": ("a.json", '[\n"x"]', "siuo", "line 2: expected an object with a text under 'image'"),
    "no list": ("a.json", '[{"image": "a.png", "instr-resp": 1}]', "vlguard", "line 1: expected a list .*'instr-resp'"),
    "nothing": ("a.json", '[{"image": "a.png", "instr-resp": []}]', "vlguard", "line 1: expected one of safe_instr"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_another_layout_is_named_with_its_place(write, fault):
    name, content, kind, message = FAULTS[fault]
    with pytest.raises(SurgeryError, match=message):
        load_prompts(f"{write(name, content)}:{kind}")


@pytest.mark.parametrize("kind", ["orbench", "OR-Bench", "or_bench", "OrBench"])
def test_the_spelling_of_a_kind_is_free(kind):
    assert split_spec(f"a:b.csv:{kind}")[1] == "or-bench"
