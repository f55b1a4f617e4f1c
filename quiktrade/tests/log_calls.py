"""Finds every call that logs in the product's code, and the event that it names.

`python3 -m quiktrade.tests.log_calls` prints the table of docs/logs.md.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from quiktrade.local.venv import ROOT

PARTS = ("quiktrade", "orders", "exchanges")
LEVELS = ("debug", "info", "warning", "error", "critical", "exception", "log")
FIELDS = {"self._about": 0, "self._where": 0}
"""Functions that return the fields of a line, and the place of the event among their arguments."""
TELLERS = {"self._notice": (1, 2), "self._tell": (1, 2)}
"""Functions that log for others, and the places of the sentence and of the event."""
GIVEN = "given"
"""Said of a line whose event was given to the function: by those that call a teller, or as an order's own event."""
NAME = re.compile(r"[a-z_]+\.([a-z_]+|[a-z_]*\*)")


@dataclass(frozen=True)
class LogCall:
    place: str
    level: str
    sentence: str
    event: str
    """A name; its constant beginning and `*`, where an order's or a webhook's event follows; or nothing."""


def log_calls() -> list[LogCall]:
    files = [file for part in PARTS for file in sorted((ROOT / part).rglob("*.py"))]
    return [call for file in files if not {"tests", "migrations"} & set(file.parts) for call in _in_file(file)]


def _in_file(file: Path) -> Iterator[LogCall]:
    tree = ast.parse(file.read_text())
    reader = _Reader(tree)
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for call in _calls_of(function):
                if found := reader.read(call, function):
                    yield LogCall(f"{file.relative_to(ROOT)}:{call.lineno}", *found)


def _calls_of(function: ast.AST) -> Iterator[ast.Call]:
    """The calls in this function, not those in functions within it."""
    for node in ast.iter_child_nodes(function):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if isinstance(node, ast.Call):
                yield node
            yield from _calls_of(node)


class _Reader:
    def __init__(self, tree: ast.Module) -> None:
        self._constants = tree

    def read(self, call: ast.Call, function: ast.AST) -> tuple[str, str, str] | None:
        """The level, sentence and event of a call that logs; None for any other call."""
        called, arguments = ast.unparse(call.func), call.args
        if called in TELLERS and len(arguments) > 2:
            sentence, event = (self._text(arguments[place], call, function) for place in TELLERS[called])
            return "", sentence, event
        logger, _, level = called.rpartition(".")
        if logger not in ("logger", "self.log") or level not in LEVELS:
            return None
        if level == "log":
            level, arguments = "", arguments[1:]
        extra = [keyword.value for keyword in call.keywords if keyword.arg == "extra"]
        sentence = self._text(arguments[0], call, function)
        return level, sentence, self._event(extra[0], call, function) if extra else ""

    def _event(self, extra: ast.expr, call: ast.Call, function: ast.AST) -> str:
        """The event among the fields of a line; the last one, if there is more than one."""
        fields = self._assigned(extra, call, function)
        if isinstance(fields, ast.Call) and ast.unparse(fields.func) in FIELDS:
            return self._text(fields.args[0], call, function)
        if not isinstance(fields, ast.Dict):
            return GIVEN if ast.unparse(fields) in ("fields", "_order_fields(order)") else ""
        for key, value in reversed(list(zip(fields.keys, fields.values, strict=True))):
            if isinstance(key, ast.Constant) and key.value == "event":
                return self._text(value, call, function)
            if key is None and (found := self._event(value, call, function)) not in ("", GIVEN):
                return found
        spread = [ast.unparse(value) for key, value in zip(fields.keys, fields.values, strict=True) if key is None]
        return GIVEN if "_order_fields(order)" in spread else ""

    def _assigned(self, value: ast.expr, call: ast.Call, function: ast.AST) -> ast.expr:
        """What a name was last given before the call, in the function or else in the module."""
        if not isinstance(value, ast.Name):
            return value
        for scope in (function, self._constants):
            nodes = ast.walk(function) if scope is function else self._constants.body
            given = [
                node
                for node in nodes
                if isinstance(node, ast.Assign)
                and ast.unparse(node.targets[0]) == value.id
                and (scope is not function or node.lineno < call.lineno)
            ]
            if given:
                return max(given, key=lambda node: node.lineno).value
        return value

    def _text(self, value: ast.expr, call: ast.Call, function: ast.AST) -> str:
        """A constant; or the constant beginning of a formatted one and `*`; GIVEN, if it is an argument."""
        value = self._assigned(value, call, function)
        if isinstance(value, ast.Constant):
            return str(value.value)
        if isinstance(value, ast.JoinedStr) and isinstance(value.values[0], ast.Constant):
            return f"{value.values[0].value!s}*"
        if isinstance(value, ast.Attribute | ast.IfExp):
            return ""
        return GIVEN


def table() -> str:
    rows = {(call.event, call.level, call.sentence) for call in log_calls() if call.event != GIVEN}
    lines = [f"| `{event}` | {_shown(level)} | {_shown(sentence)} |" for event, level, sentence in sorted(rows)]
    return "\n".join(["| event | level | sentence |", "|---|---|---|", *lines])


def _shown(text: str) -> str:
    return {"": "", GIVEN: "", "exception": "error, with a traceback"}.get(
        text, text.replace("*", "…").replace("|", "/")
    )


if __name__ == "__main__":
    print(table())  # noqa: T201
