"""What a release says of itself agrees: pyproject.toml, CHANGELOG.md, CITATION.cff."""

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

HOUSE = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]
CHANGELOG = (HOUSE / "CHANGELOG.md").read_text(encoding="utf-8")
ENTRY = re.compile(r"^## \[(\d+\.\d+\.\d+)\] - (unreleased|\d{4}-\d{2}-\d{2})$", re.MULTILINE)
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]  # of keepachangelog.com, in its order


def test_the_changelogs_top_entry_is_the_projects_version_and_versions_fall() -> None:
    entries = ENTRY.findall(CHANGELOG)
    assert len(entries) == len(re.findall(r"^## ", CHANGELOG, re.MULTILINE))
    versions = [version for version, _ in entries]
    assert versions[0] == PROJECT["version"]
    assert versions == sorted(set(versions), key=lambda each: [*map(int, each.split("."))], reverse=True)
    assert all(date != "unreleased" for _, date in entries[1:])


def test_an_entry_groups_what_users_see_by_kind() -> None:
    for entry in re.split(r"^## ", CHANGELOG, flags=re.MULTILINE)[1:]:
        kinds = re.findall(r"^### (.*)$", entry, re.MULTILINE)
        assert kinds == [kind for kind in KINDS if kind in kinds]
        for group in re.split(r"^### ", entry, flags=re.MULTILINE)[1:]:
            assert re.search(r"^- ", group, re.MULTILINE), group


def test_the_citation_is_of_this_project_and_names_the_paper() -> None:
    cited = yaml.safe_load((HOUSE / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()  # what the format asks for
    for key in ("version", "license", "keywords"):
        assert cited[key] == PROJECT[key]
    assert cited["title"] == PROJECT["name"]
    (paper,) = cited["references"]
    assert paper["identifiers"][0]["value"] == "arXiv:2410.07571"
    assert [each["family-names"] for each in paper["authors"]] == ["Lee", "Kim", "Kim", "Lee", "Chang", "Park", "Seo"]
