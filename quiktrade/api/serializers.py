"""What all serializers of the API have in common."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, cast

from drf_spectacular.extensions import OpenApiSerializerExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import Direction
from rest_framework import serializers
from rest_framework.fields import empty


class KnownFieldsSerializer(serializers.Serializer[Any]):
    """Refuses fields that it does not know: a misspelt field must not be ignored silently.

    Optional fields that are absent are skipped without calling them, because most of an order's are. Null means absent.
    """

    default_error_messages = {"invalid": "A JSON object is required."}

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, Mapping):
            super().to_internal_value(data)  # raises
        values: dict[str, Any] = {}
        errors: dict[str, Any] = {}
        for name, run_validation, required, default, check in self._writable:
            given = data.get(name, empty)
            if not required and (given is empty or given is None):
                if default is not empty:
                    values[name] = default
                continue
            try:
                value = run_validation(given)
                values[name] = check(value) if check else value
            except serializers.ValidationError as error:
                errors[name] = error.detail
        if not data.keys() <= self._names:
            allowed = ", ".join(name for name, *_ in self._writable)
            unknown = serializers.ErrorDetail(f"Unknown. Allowed are: {allowed}.", "unknown")
            errors |= dict.fromkeys(sorted(map(str, data.keys() - self._names)), unknown)
        if errors:
            raise serializers.ValidationError(errors)
        return values

    def run_validators(self, value: Any) -> None:
        if self.validators:
            super().run_validators(value)

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self.fields)

    @cached_property
    def _writable(self) -> list[tuple[str, Callable[[Any], Any], bool, Any, Callable[[Any], Any] | None]]:
        """For each field its name, how to check a value, whether it is required, its default, and this serializer's
        own check, if any.
        """
        return [
            (
                name,
                field.run_validation,
                field.required,
                field.default,
                getattr(self, f"validate_{name}", None),
            )
            for name, field in self.fields.items()
            if not field.read_only
        ]


class KnownFieldsSchema(OpenApiSerializerExtension):  # type: ignore[no-untyped-call]
    """Says in the OpenAPI document what `KnownFieldsSerializer` does with a body. Defining the class registers it."""

    target_class = KnownFieldsSerializer
    match_subclasses = True

    def map_serializer(self, auto_schema: AutoSchema, direction: Direction) -> dict[str, Any]:
        mapped = auto_schema._map_serializer(self.target, direction, True)  # type: ignore[no-untyped-call]
        schema = cast(dict[str, Any], mapped)
        if auto_schema.method == "GET":  # its fields are parameters of the query, which cannot be null
            return schema
        for name in schema["properties"].keys() - set(schema.get("required", ())):
            field = schema["properties"][name]
            field["nullable"] = True
            field.pop("default", None)  # otherwise generated clients require the field
            if "enum" in field:
                field["enum"] = [*field["enum"], None]
        return {**schema, "additionalProperties": False}
