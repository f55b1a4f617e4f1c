"""What a change of the API's description breaks for clients that were written for the earlier one.

A request may widen and an answer may narrow: what a client sends today must be taken tomorrow, and what it gets
tomorrow must be something that it could get today. Where a document does not decide that, such as whether one pattern
takes all that another one takes, the change counts as a break. What was deprecated may go after its sunset.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

Document = dict[str, Any]

_METHODS = ("get", "put", "post", "delete", "patch")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
EXTENSIBLE = "x-extensible-enum"
"""Marks an enum to which values may be added, in answers, too."""
SUNSET = "x-sunset"
"""Of an operation: the time after which it may be gone."""


def breaks(old: Document, new: Document) -> list[str]:
    """A sentence for each change after which a client of `old` may fail with `new`; both are OpenAPI 3.0 documents."""
    return list(dict.fromkeys(_Comparison(old, new).documents()))


class _Comparison:
    def __init__(self, old: Document, new: Document) -> None:
        self.old, self.new = old, new
        self.compared: set[tuple[str, str, bool]] = set()

    def documents(self) -> Iterator[str]:
        for path, operations in self.old["paths"].items():
            for method in _METHODS:
                if method not in operations:
                    continue
                where = f"{method.upper()} {path}"
                other = self.new["paths"].get(path, {}).get(method)
                if other is not None:
                    yield from self.operation(where, operations[method], other)
                elif not _over(operations[method]):
                    yield f"{where}: removed"

    def operation(self, where: str, old: Document, new: Document) -> Iterator[str]:
        if old["operationId"] != new["operationId"]:  # generated clients have functions of this name
            yield f"{where}: operationId is {new['operationId']} and was {old['operationId']}"
        yield from self.parameters(where, old, new)
        yield from self.security(where, old.get("security", []), new.get("security", []))
        yield from self.body(where, old, new)
        yield from self.responses(where, old["responses"], new["responses"])

    def parameters(self, where: str, old: Document, new: Document) -> Iterator[str]:
        before = {(each["in"], each["name"]): each for each in old.get("parameters", ())}
        after = {(each["in"], each["name"]): each for each in new.get("parameters", ())}
        for key in after.keys() - before.keys():
            if after[key].get("required"):
                yield f"{where}, parameter {key[1]}: new and required"
        for key, parameter in before.items():
            here, other = f"{where}, parameter {key[1]}", after.get(key)
            if other is None:
                yield f"{here}: removed"
                continue
            if other.get("required") and not parameter.get("required"):
                yield f"{here}: required now"
            for name in ("style", "explode"):
                if parameter.get(name) != other.get(name):
                    yield f"{here}: {name} is {other.get(name)} and was {parameter.get(name)}"
            yield from self.schema(here, parameter["schema"], other["schema"], sent=True)

    def security(self, where: str, old: list[Any], new: list[Any]) -> Iterator[str]:
        """Each is a list of alternatives. Nothing is needed if there is none, or an empty one."""
        after = new or [{}]
        if {} not in after and any(scheme not in after for scheme in old or [{}]):
            yield f"{where}: security is {new} and was {old}"

    def body(self, where: str, old: Document, new: Document) -> Iterator[str]:
        before, after = old.get("requestBody"), new.get("requestBody")
        if after and after.get("required") and not (before and before.get("required")):
            yield f"{where}, body: required now"
        if before and not after:
            yield f"{where}, body: removed"
        elif before and after:
            yield from self.contents(f"{where}, body", before, after, sent=True)

    def responses(self, where: str, old: Document, new: Document) -> Iterator[str]:
        for code in new.keys() - old.keys():
            if code < "400":  # clients must expect errors that they do not know
                yield f"{where}, {code}: a new answer"
        for code, answer in old.items():
            here, other = f"{where}, {code}", new.get(code)
            if other is None:
                yield f"{here}: removed"
                continue
            for header in answer.get("headers", {}).keys() - other.get("headers", {}).keys():
                yield f"{here}, header {header}: removed"
            yield from self.contents(here, answer, other, sent=False)

    def contents(self, where: str, old: Document, new: Document, *, sent: bool) -> Iterator[str]:
        after = new.get("content", {})
        for media_type, content in old.get("content", {}).items():
            if media_type not in after:
                yield f"{where}, {media_type}: removed"
            elif "schema" in content:
                yield from self.schema(where, content["schema"], after[media_type]["schema"], sent=sent)

    def schema(self, where: str, old: Document, new: Document, *, sent: bool) -> Iterator[str]:
        """`sent`: by a client; otherwise it is something that a client receives."""
        key = (json.dumps(old, sort_keys=True), json.dumps(new, sort_keys=True), sent)
        if key in self.compared:  # a schema may contain itself, and many operations share one
            return
        self.compared.add(key)
        old, new = _whole(self.old, old), _whole(self.new, new)
        yield from self.value(where, old, new, sent=sent)
        yield from self.enum(where, old, new, sent=sent)
        yield from self.bounds(where, old, new, sent=sent)
        yield from self.properties(where, old, new, sent=sent)
        if "items" in old and "items" in new:
            yield from self.schema(f"{where}[]", old["items"], new["items"], sent=sent)
        for kind in ("oneOf", "anyOf"):
            before, after = old.get(kind, []), new.get(kind, [])
            if len(before) != len(after):
                yield f"{where}: {kind} has {len(after)} alternatives and had {len(before)}"
            for one, other in zip(before, after, strict=False):
                yield from self.schema(where, one, other, sent=sent)

    def value(self, where: str, old: Document, new: Document, *, sent: bool) -> Iterator[str]:
        narrow, wide = (new, old) if sent else (old, new)
        for name in ("type", "format", "pattern"):
            # Without one, anything is taken. So a request may lose it, and an answer may get it.
            if old.get(name) != new.get(name) and name in narrow:
                yield f"{where}: {name} is {new.get(name)} and was {old.get(name)}"
        if wide.get("nullable") and not narrow.get("nullable"):
            yield f"{where}: " + ("null is refused now" if sent else "may be null now")
        if sent and old.get("default", new.get("default")) != new.get("default"):
            yield f"{where}: the default is {new.get('default')} and was {old.get('default')}"

    def enum(self, where: str, old: Document, new: Document, *, sent: bool) -> Iterator[str]:
        narrow, wide = (new, old) if sent else (old, new)
        if "enum" not in narrow or (not sent and old.get(EXTENSIBLE)):
            return
        if "enum" not in wide:
            yield f"{where}: " + ("only some values are taken now" if sent else "any value may come now")
        elif more := [value for value in wide["enum"] if value not in narrow["enum"]]:
            yield f"{where}: " + (f"{more} is refused now" if sent else f"may be {more} now")

    def bounds(self, where: str, old: Document, new: Document, *, sent: bool) -> Iterator[str]:
        narrow, wide = (new, old) if sent else (old, new)
        for name in (*_UPPER, *_LOWER):
            if name not in narrow:
                continue
            within = name in wide and (wide[name] <= narrow[name] if name in _UPPER else wide[name] >= narrow[name])
            if not within:
                yield f"{where}: {name} is {new.get(name)} and was {old.get(name)}"

    def properties(self, where: str, old: Document, new: Document, *, sent: bool) -> Iterator[str]:
        before, after = old.get("properties", {}), new.get("properties", {})
        for name, schema in before.items():
            if name not in after:
                yield f"{where}/{name}: removed"
            else:
                yield from self.schema(f"{where}/{name}", schema, after[name], sent=sent)
        had, has = set(old.get("required", ())), set(new.get("required", ()))
        for name in sorted(has - had if sent else had - has):
            if name in after:
                yield f"{where}/{name}: " + ("required now" if sent else "may be absent now")
        if sent and new.get("additionalProperties") is False and old.get("additionalProperties") is not False:
            yield f"{where}: properties that it does not know are refused now"


def _over(operation: Document) -> bool:
    sunset = operation.get(SUNSET)
    return sunset is not None and datetime.fromisoformat(sunset) < datetime.now(UTC)


def _whole(document: Document, schema: Document) -> Document:
    """The schema with what it refers to."""
    whole: Document = {}
    if "$ref" in schema:
        target: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        whole = _whole(document, target)
    for part in schema.get("allOf", ()):
        whole = {**whole, **_whole(document, part)}
    return {**whole, **{name: value for name, value in schema.items() if name not in ("$ref", "allOf")}}
