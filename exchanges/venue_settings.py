"""A venue's settings on its page: a JSON object whose secrets are shown as dots and kept as they are."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from unfold.widgets import UnfoldAdminTextareaWidget

MASK = "••••••"
MOST_CHARACTERS = 10_000
_SECRET = re.compile(r"key|secret|token|passw|passphrase|credential|auth", re.IGNORECASE)


class SettingsField(forms.CharField):
    """Returns the object itself. Secrets are shown masked; if a mask is sent back, `unmasked` restores the secret."""

    widget = UnfoldAdminTextareaWidget(attrs={"rows": 6, "spellcheck": "false"})

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=MOST_CHARACTERS, **kwargs)

    def prepare_value(self, value: Any) -> Any:
        return json.dumps(masked(value), indent=2, ensure_ascii=False) if isinstance(value, dict) else value

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return bool(unmasked(self.clean(data), initial or {}) != initial)
        except ValidationError:
            return True

    def clean(self, value: Any) -> dict[str, Any]:
        text = super().clean(value)
        try:
            read = json.loads(text, parse_constant=_refuse)
            json.dumps(read, allow_nan=False)  # 1e999 is read as infinity
        except (ValueError, RecursionError) as error:
            raise ValidationError(f"That is no JSON: {error}"[:200]) from None
        if not isinstance(read, dict):
            raise ValidationError('An object is needed: {"name": value, …}.')
        for found in _texts(read):
            if "\0" in found or not _encodable(found):
                raise ValidationError("A text in it has a NUL or half of a surrogate pair, which cannot be stored.")
        return read


def masked(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: MASK if _SECRET.search(name) else masked(value) if isinstance(value, dict) else value
        for name, value in settings.items()
    }


def unmasked(settings: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` with each mask replaced by the stored secret. Raises: ValidationError, if none is stored."""
    whole: dict[str, Any] = {}
    for name, value in settings.items():
        before = stored.get(name) if isinstance(stored, Mapping) else None
        if value == MASK and before is None:
            raise ValidationError(f"{name}: the dots stand for a value that is kept, and there is none.")
        if value == MASK:
            value = before
        elif isinstance(value, dict):
            value = unmasked(value, before if isinstance(before, dict) else {})
        whole[name] = value
    return whole


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number")


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for each in value:
                yield from _texts(each)
        case dict():
            yield from value
            for each in value.values():
                yield from _texts(each)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
