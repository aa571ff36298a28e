"""What the page is told of a case: numbers against numpy, completions, and prompts read by models in memory."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from vlsurgery.cli.explore.session import open_page
from vlsurgery.cli.options import Running
from vlsurgery.figures import theme

PAIR = "/pair?first=base/text&second=adapted/text&position=-1&layer=2"


def test_the_case_says_what_there_is_to_choose_from(client: Any) -> None:
    status, case = client.get("/case")
    assert status == 200
    assert [side["key"] for side in case["sides"]] == ["base/text", "adapted/text"]
    assert case["sides"][0]["positions"] == ["instruction", "-2", "-1"]
    assert case["sides"][0]["layers"] == 3
    assert case["shown"] == ["-2", 1]
    assert case["cells"] == ["harmful", "harmful.text", "harmless", "harmless.text"]
    assert [(seat["role"], seat["absent"]) for seat in case["seats"]] == [
        ("base", None),
        ("graft", None),
        ("adapted", None),
    ]


def test_two_directions_have_the_cosines_that_numpy_gives(client: Any, explored: Path) -> None:
    status, answer = client.get(PAIR)
    assert status == 200
    first, second = (load_file(explored / "directions.safetensors")[f"{role}/text/-1"] for role in ("base", "adapted"))
    wanted = [np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(first, second, strict=True)]
    assert [row["cosine"] for row in answer["rows"]] == pytest.approx(wanted, abs=1e-6)
    assert answer["rows"][2]["base, text only: AUROC"] == pytest.approx(0.7)
    assert f"{wanted[2]:.2f}".replace("-", "−") in answer["figures"][0]["title"]
    for figure in answer["figures"]:
        papers = [figure[paper]["layout"]["template"]["layout"]["paper_bgcolor"] for paper in ("light", "dark")]
        assert papers == [theme.PAPER, theme.DARK[theme.PAPER]]
        assert not figure["light"]["layout"]["title"]  # It stands in the page, where it can wrap.


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("/pair?first=base/text&second=nobody/text&position=-1&layer=0", ("second", "nobody/text", "adapted/text")),
        ("/pair?first=base/text&second=adapted/text&position=-9&layer=0", ("position", "'-9'", "instruction, -2, -1")),
        ("/pair?first=base/text&second=adapted/text&position=-1&layer=3", ("layer", "0, 1, 2")),
        ("/pair?first=base/text&second=adapted/text&position=-1&layer=x", ("layer", "'x'", "whole number")),
        ("/pair?first=../../base&second=adapted/text&position=-1", ("first", "base/text")),
        ("/pair?first=a&first=b", ("twice",)),
        ("/completions?set=nothing", ("nothing", "harmful.text")),
        ("/completions?strange=1", ("strange",)),
        ("/completions?page=-1", ("page", "whole number")),
        ("/case?x=1", ("x",)),
    ],
)
def test_what_is_not_there_is_said_in_one_line(client: Any, query: str, words: tuple[str, ...]) -> None:
    status, answer = client.get(query)
    assert status == 400
    assert all(word in answer["error"] for word in words), answer
    assert "\n" not in answer["error"]


def test_completions_are_searched_and_stand_side_by_side(client: Any) -> None:
    _, every = client.get("/completions")
    assert (every["count"], len(every["prompts"])) == (60, 20)
    assert [one["role"] for one in every["prompts"][0]["answers"]] == ["base", "adapted"]
    _, last = client.get("/completions?page=2")
    assert (last["first"], len(last["prompts"])) == (40, 20)
    _, lost = client.get("/completions?flipped=base:adapted&set=harmful")
    assert lost["count"] == 15
    assert {tuple(one["label"] for one in each["answers"]) for each in lost["prompts"]} == {("refused", "complied")}
    _, one = client.get("/completions?grep=CAT%2017&role=base&verdict=refused")
    assert [each["prompt"] for each in one["prompts"]] == ["i want to kill the cat 17"]
    assert client.get("/completions?grep=zebra")[1]["count"] == 0


def test_text_of_models_is_text_and_controls_are_spelt_out(client: Any) -> None:
    """The page sets it as text; what it can't show as such, terminal and direction marks, is spelt out."""
    _, found = client.get("/completions?grep=onerror&set=harmful&verdict=complied")
    texts = [one["text"] for each in found["prompts"] for one in each["answers"]]
    assert any(text.startswith("<img src=x onerror=alert(1)>") for text in texts)
    assert not any(letter in "".join(texts) for letter in "\x1b\u202e")
    assert client.send("GET", f"/{client.token}/completions")[1]["Content-Type"] == "application/json"


def test_a_typed_prompt_is_read_as_the_model_itself_reads_it(client: Any, explored: Path) -> None:
    """Against transformers alone: projections by a dot product, the last layer of the lens by the model's logits."""
    status, answer = client.read()
    assert status == 200
    folder = explored.parent / "base"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    chat = [{"role": "user", "content": "i want to kill the cat"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    states: list[torch.Tensor] = []
    handles = [
        layer.register_forward_hook(lambda _, __, out: states.append((out if torch.is_tensor(out) else out[0])[0, -1]))
        for layer in model.model.layers
    ]
    with torch.no_grad():
        logits = model(ids).logits[0, -1]
    for handle in handles:
        handle.remove()
    units = load_file(explored / "directions.safetensors")["base/text/-1"]
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    along = [float(state @ torch.tensor(unit)) for state, unit in zip(states, units, strict=True)]
    rows = [row for row in answer["rows"] if row["role"] == "base"]
    assert [row["along the direction"] for row in rows] == pytest.approx(along, abs=1e-4)
    chance = logits.softmax(-1)[tokenizer.convert_tokens_to_ids("i")]
    assert rows[-1]["refusal log-odds, nats"] == pytest.approx(float(chance.log() - (-chance).log1p()), abs=1e-3)


def test_roles_that_read_one_prompt_stand_side_by_side(client: Any) -> None:
    """One model is in memory; the graft of a base that sees as much as the adapted model is the base."""
    text = "i want to praise the cat"  # that no other test has read: answers are kept
    found = [client.read(role=role, text=text)[1] for role in ("base", "adapted", "graft")]
    assert [[each["role"] for each in one["answers"]] for one in found] == [
        ["base"],
        ["base", "adapted"],
        ["base", "graft", "adapted"],
    ]
    assert client.get("/doing")[1] == {"doing": "", "loaded": "graft"}
    lines = {role: [row for row in found[-1]["rows"] if row["role"] == role] for role in ("base", "graft", "adapted")}
    names = ("along the direction", "0 harmless, 1 harmful", "refusal log-odds, nats")
    for ours, same, other in zip(*lines.values(), strict=True):
        for name in names:
            assert ours[name] == pytest.approx(same[name], abs=1e-3)
        assert ours["along the direction"] != pytest.approx(other["along the direction"], abs=1e-3)
    assert [each["role"] for each in client.read(role="graft", text="i want the cat")[1]["answers"]] == ["graft"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"text": ""}, ("text", "at least 1")),
        ({"text": "x" * 9_000}, ("text", "at most 8000")),
        ({"text": 3}, ("text", "string")),
        ({"role": "graft", "text": "cat " * 500}, ("tokens", "reads at most 64")),
        ({"role": "nobody"}, ("role", "nobody", "base, graft, adapted")),
        ({"direction": "x"}, ("direction", "base/text")),
        ({"position": "-7"}, ("position", "-7")),
        ({"role": "graft", "modality": "blank"}, ("graft takes no pictures",)),
        ({"modality": "own"}, ("modality",)),
        ({"more": 1}, ("more",)),
    ],
)
def test_a_prompt_that_can_t_be_read_is_said_in_one_line(
    client: Any, changed: dict[str, Any], words: tuple[str, ...]
) -> None:
    status, answer = client.read(**changed)
    assert status == 400
    assert all(word in answer["error"] for word in words), answer
    assert client.get("/doing")[1]["doing"] == ""


def test_without_checkpoints_all_but_typed_prompts_is_there(serving: Any, explored: Path, tmp_path: Path) -> None:
    shutil.copytree(explored, tmp_path / "case")
    case = json.loads((tmp_path / "case/case.json").read_text())
    for ref in case["checkpoints"].values():
        ref["path"] = str(tmp_path / "gone")
    case["beside"] = {}
    (tmp_path / "case/case.json").write_text(json.dumps(case))
    with open_page(tmp_path / "case", Running(), 0) as server, serving(server) as moved:
        seats = moved.get("/case")[1]["seats"]
        assert all("vlsurgery diff" in seat["absent"] for seat in seats)
        assert moved.get(PAIR)[0] == 200
        assert moved.get("/completions")[1]["count"] == 60
        status, answer = moved.read()
    assert status == 400
    assert "vlsurgery diff" in answer["error"]


def test_a_case_without_findings_says_what_makes_them(serving: Any, explored: Path, tmp_path: Path) -> None:
    (tmp_path / "case").mkdir()
    shutil.copy(explored / "case.json", tmp_path / "case")
    with open_page(tmp_path / "case", Running(), 0) as server, serving(server) as bare:
        assert bare.get("/case")[0] == 200
        assert "vlsurgery probe" in bare.get(PAIR)[1]["error"]
        assert "vlsurgery evaluate" in bare.get("/completions")[1]["error"]
