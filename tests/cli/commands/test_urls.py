"""Commands on checkpoints at URLs: what reads weights does what it does on disk, and all else says so in one line."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

import vlsurgery
from vlsurgery.cli.workflow.case import Case
from vlsurgery.surgery.checkpoint.remote import store
from vlsurgery.surgery.errors import CheckpointError, SurgeryError, TargetError

Run = Callable[..., Result]
URL = "s3://bucket/model"
NAMING = ("README.md", "recipe.yaml", "SHA256SUMS")


@pytest.fixture
def urls(trio: dict[str, Path], upload: Callable[[Path], str]) -> dict[str, str]:
    """The trio in a store."""
    return {role: upload(path) for role, path in trio.items()}


def ties(places: Mapping[str, Any], *more: object) -> list[object]:
    return ["merge", "--method", "ties", places["adapted"], places["safety"], "--base", places["base"], *more]


def contents(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.name not in NAMING}


def diff_of(case: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(case, "diff.json").read_text())
    return {key: value for key, value in found.items() if key not in ("created", "checkpoints")}


@pytest.mark.parametrize("more", [[], ["--ray", "local:2"]])
def test_diff_and_merge_give_what_they_give_on_disk(
    run: Run, trio: dict[str, Path], urls: dict[str, str], addresses: list[str], more: list[str]
) -> None:
    for name, places, option in (("here", trio, []), ("away", urls, more)):
        for shown in (
            run(*ties(places, "-o", name, *option)),
            run("diff", *places.values(), "--case", f"case-{name}", *option),
        ):
            assert shown.exit_code == 0, shown.stderr
    assert contents("here") == contents("away")
    assert diff_of("case-here") == diff_of("case-away")
    assert addresses == ["local:2"] * 2 * bool(more)
    shown = run("merge", "--recipe", "away/recipe.yaml", "-o", "again", *more)
    assert shown.exit_code == 0, shown.stderr
    assert contents("again") == contents("away")
    for name in ("README.md", "recipe.yaml"):
        assert urls["adapted"] in Path("away", name).read_text()


def test_anatomy_and_a_plan_read_headers(run: Run, trio: dict[str, Path], urls: dict[str, str]) -> None:
    here, away = (json.loads(run("anatomy", each["adapted"], "--json").stdout) for each in (trio, urls))
    assert here["tensors"] == away["tensors"]
    assert away["checkpoints"]["checkpoint"]["path"] == urls["adapted"]
    (step,) = json.loads(run(*ties(urls, "-o", "out", "--plan", "--json")).stdout)["plan"]
    assert step["reads"]["adapted"]["path"] == urls["adapted"]
    assert step["bytes_read"] > 0
    assert not list(Path().iterdir())


def test_a_case_of_urls_is_found_again_and_read_where_the_store_is_gone(
    run: Run, urls: dict[str, str], files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "WAIT_SECONDS", 0.0)
    assert run("diff", *urls.values(), "--level", "norms").exit_code == 0
    content = json.loads(Path("case/case.json").read_text())
    assert {role: ref["path"] for role, ref in content["checkpoints"].items()} == urls
    assert content["beside"] == {}
    assert not any("contents" in ref for ref in content["checkpoints"].values())
    shown = run("diff", *(f"{url}/" for url in urls.values()), "--level", "norms", "--plan", "--json")
    assert json.loads(shown.stdout) == {"plan": []}
    files.rm(f"/{urls['base'].removeprefix('memory://')}", recursive=True)
    case = Case.open("case")
    assert case.checkpoints.find("base") is None
    assert case.refs["base"].path == urls["base"]
    with pytest.raises(CheckpointError, match=r"^base: memory://\S+: nothing is there.*say where: vlsurgery diff"):
        case.checkpoints["base"]
    assert run("report").exit_code == 0


@pytest.mark.parametrize(
    "words",
    [
        ["probe", URL, "{adapted}"],
        ["evaluate", "{base}", URL],
        ["trajectory", "{base}", URL],
        ["evaluate", f"{{base}}+{URL}"],
    ],
)
def test_what_runs_models_refuses_a_url_before_any_work(run: Run, trio: dict[str, Path], words: list[str]) -> None:
    shown = run(*(word.format(**trio) for word in words))
    assert shown.exit_code == 2
    (line,) = shown.stderr.splitlines()
    assert line.startswith(f"error: {URL}: {words[0]} runs models, and needs them in directories")
    assert f"aws s3 cp --recursive {URL} DIR" in line
    assert not list(Path().iterdir())


@pytest.mark.parametrize("what", ["merge --auto", "probe", "evaluate"])
def test_a_case_of_urls_runs_no_models(run: Run, urls: dict[str, str], what: str) -> None:
    assert run("diff", *urls.values(), "--level", "norms").exit_code == 0
    shown = run(*what.split())
    assert shown.exit_code == 2
    assert f"/base: {what} runs models, and needs them in directories" in shown.stderr
    assert "(with the store's own tool)" in shown.stderr
    assert len(shown.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["diff", "{base}", "{adapted}", "--case", "s3://bucket/case"],
            "s3://bucket/case: a URL, and only directories",
        ),
        (["convert", "s3://bucket/x.gguf", "-o", "x"], "s3://bucket/x.gguf: a URL, and a GGUF file is read from this"),
        (["convert", "x.gguf", "-o", "s3://bucket/x"], "s3://bucket/x: a URL, and only directories"),
        (["push", "s3://bucket/merged", "org/name"], "s3://bucket/merged: a URL, and a merge is sent from a directory"),
        (["merge", "--auto", "-o", "gs://bucket/out"], "gs://bucket/out: a URL, and only directories"),
        (["anatomy", URL, "--verify"], "--verify takes directories of checkpoints"),
        (["anatomy", "https://me:hunter2@host/model"], "https://host/...: the URL holds a user with a password"),
    ],
)
def test_where_no_url_is_taken_one_line_says_so(run: Run, trio: dict[str, Path], words: list[str], said: str) -> None:
    shown = run(*(word.format(**trio) for word in words))
    assert shown.exit_code == 2
    (line,) = shown.stderr.splitlines()
    assert said in line
    assert "hunter2" not in line
    assert not list(Path().iterdir())


def test_a_merge_writes_to_no_url(run: Run, trio: dict[str, Path], urls: dict[str, str]) -> None:
    for out in (["-o", "s3://bucket/out"], ["--to-mergekit", "s3://bucket/order.yaml"]):
        shown = run(*ties(trio, *out))
        assert (shown.exit_code, len(shown.stderr.splitlines())) == (2, 1)
        assert "a URL, and only directories of this machine are written to" in shown.stderr
    linear = ["merge", "--method", "linear", urls["adapted"], urls["safety"], "--weight", 0.5]
    shown = run(*linear, "--to-mergekit", "order.yaml")
    assert "is a URL, and mergekit reads directories and the Hub alone" in shown.stderr
    assert not list(Path().iterdir())


def test_a_push_of_a_merge_names_no_store(run: Run, urls: dict[str, str]) -> None:
    assert run(*ties(urls, "-o", "merged")).exit_code == 0
    card = Path("merged/README.md")
    assert "memory://" in card.read_text()
    shown = run("push", "merged", "org/name", "--json")
    assert shown.exit_code == 0, shown.stderr
    assert "memory:/" not in shown.stdout
    assert "adapted" in shown.stdout


def test_in_a_notebook_weights_are_read_and_models_are_not_run(
    urls: dict[str, str], trio: dict[str, Path], tmp_path: Path
) -> None:
    opened = vlsurgery.open(urls["adapted"])
    assert opened.identity == vlsurgery.open(trio["adapted"]).identity
    here, away = (vlsurgery.diff(each["base"], each["adapted"], level="norms") for each in (trio, urls))
    assert here.pairs == away.pairs
    made = vlsurgery.merge("linear", opened, urls["safety"], out=tmp_path / "out")
    assert made.shards == vlsurgery.merge("linear", trio["adapted"], trio["safety"], out=tmp_path / "here").shards
    for call in (
        lambda: vlsurgery.probe(urls["base"], opened),
        lambda: vlsurgery.evaluate(opened),
    ):
        with pytest.raises(SurgeryError, match="runs models, and needs them in directories"):
            call()
    with pytest.raises(TargetError, match="a URL, and only directories"):
        vlsurgery.merge("linear", opened, urls["safety"], out="s3://bucket/out")
