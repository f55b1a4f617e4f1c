"""Files for people and for other tools say the same as those that they follow."""

import configparser
import tomllib
from typing import Any

import pytest
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
