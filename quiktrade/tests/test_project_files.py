"""Files for people and for other tools agree with the files that they follow."""

import configparser
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from rest_framework.test import APIClient

from quiktrade.local.venv import ROOT


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.django_db
def test_the_openapi_document_has_the_version_of_the_package(pyproject: dict[str, Any]) -> None:
    assert APIClient().get("/api/v1/schema").json()["info"]["version"] == pyproject["project"]["version"]


def test_editors_break_lines_where_ruff_does(pyproject: dict[str, Any]) -> None:
    editorconfig = configparser.ConfigParser()
    editorconfig.read_string("[top]\n" + (ROOT / ".editorconfig").read_text())
    assert int(editorconfig["*.py"]["max_line_length"]) == pyproject["tool"]["ruff"]["line-length"]


def test_ci_runs_every_python_that_the_package_takes(pyproject: dict[str, Any]) -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert workflow["jobs"]["check"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13", "3.14"]
    assert pyproject["project"]["requires-python"] == ">=3.11,<3.15"


def test_the_hooks_have_the_ruff_of_the_lock_file() -> None:
    hooks = {
        repo["repo"]: repo["rev"] for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    }
    locked = re.search(r"^ruff==(\S+)", (ROOT / "requirements-dev.lock").read_text(), re.MULTILINE)
    assert locked
    assert hooks["https://github.com/astral-sh/ruff-pre-commit"] == f"v{locked[1]}"


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "SECURITY.md", ".github/PULL_REQUEST_TEMPLATE.md"])
def test_what_a_document_for_contributors_names_is_there(document: str) -> None:
    text = (ROOT / document).read_text()
    paths = re.findall(r"[`(]([\w./-]+(?:\.(?:py|md|toml)|/))[`)]", text) + re.findall(r"\.ci/\w+", text)
    targets = re.findall(r"`make (\w+)`", text)
    makefile = (ROOT / "Makefile").read_text()
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert [target for target in targets if f"\n{target}: ##" not in makefile] == []


def _anchors(document: Path) -> set[str]:
    """The forge's names of a document's headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "benchmarks/README.md"])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_document_leads_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in link:
            path, _, anchor = link.partition("#")
            target = document.parent / path if path else document
            assert target.exists(), link
            assert not anchor or anchor in _anchors(target), link


def test_the_readme_is_read_in_four_minutes() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 900
