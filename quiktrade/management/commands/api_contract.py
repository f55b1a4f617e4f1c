"""Keeps the API's contract: what it describes now, what was agreed on, and what was released."""

import json
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema

from quiktrade.api.compatibility import Document, breaks
from quiktrade.management.operator_command import DJANGOS_OPTIONS

SNAPSHOT: Path = settings.BASE_DIR / "docs" / "openapi-v1.json"
"""What the API describes, as it was reviewed last."""
RELEASED: Path = settings.BASE_DIR / "docs" / "openapi-v1-released.json"
"""What the last release described. Its clients must be able to go on, so it is replaced only by `--release`."""


class Command(BaseCommand):
    help = (
        "Check that the API is described by docs/openapi-v1.json, and that no client of the last release "
        "(docs/openapi-v1-released.json) would fail with it."
    )
    requires_system_checks = []
    suppressed_base_arguments = DJANGOS_OPTIONS

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--write", action="store_true", help="write docs/openapi-v1.json, unless a client would fail")
        what.add_argument("--release", action="store_true", help="write both files, unless a client would fail")

    def handle(self, *args: Any, **options: Any) -> None:
        now = described()
        if RELEASED.exists() and (found := breaks(json.loads(RELEASED.read_text()), now)):
            raise CommandError(
                "\n".join(found) + f"\n\nClients of the last release could fail with these {len(found)} changes. Keep "
                "what there was beside what is new, and deprecate it (docs/api.md, Versions)."
            )
        text = as_text(now)
        if options["write"] or options["release"]:
            for path in (SNAPSHOT, RELEASED)[: 1 + options["release"]]:
                path.write_text(text)
                self.stdout.write(f"{path.relative_to(settings.BASE_DIR)} is written.")
        elif not SNAPSHOT.exists() or SNAPSHOT.read_text() != text:
            raise CommandError(f"{SNAPSHOT.name} is not what the API describes. {HOW_TO_WRITE}")
        else:
            self.stdout.write(f"{SNAPSHOT.name} is what the API describes, and no client of the last release fails.")


HOW_TO_WRITE = "Write it and look at the difference: python3 manage.py api_contract --write"


def described() -> Document:
    """The API's description, without its examples: they promise nothing, and they are two thirds of it."""
    document = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    validate_schema(document)  # type: ignore[no-untyped-call]
    plain: Document = _without_examples(json.loads(json.dumps(document)))
    return plain


def as_text(document: Document) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _without_examples(node: Any) -> Any:
    if isinstance(node, list):
        return [_without_examples(child) for child in node]
    if isinstance(node, dict):
        return {name: _without_examples(child) for name, child in node.items() if name not in ("example", "examples")}
    return node
