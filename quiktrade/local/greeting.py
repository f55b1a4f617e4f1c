"""Waits until orders are accepted and placed, and then shows the addresses of everything and an order to try."""

import json
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from quiktrade.asking import answer_of, listens
from quiktrade.local.log_stream import LogStream

_LONG_SECONDS = 30.0
_ORDER = {
    "type": "limit",
    "side": "buy",
    "instrument": "US0378331005",
    "limit_price": "187.50",
    "quantity": 10,
}


_WITHOUT = {
    "api": "there is no API here. Orders from another API's clients are placed.",
    "console": "there is no console here.",
    "worker": "orders are accepted, and wait as pending. To have them placed: python3 manage.py run_worker",
    "session": "what venues report is not read. To have it read: python3 manage.py run_venue_session",
    "exchange": "the simulated exchange is not started. Unless another one is at {}, orders for it wait.",
}
"""What it means that a part does not run; {} is where the exchange would be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """What runs, and where. `host` is where the API and the console listen."""

    parts: list[str]
    host: str
    port: int
    console_port: int
    exchange_port: int

    @property
    def local_host(self) -> str:
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104

    def bind(self, port: int) -> str:
        return f"{_bracketed(self.host)}:{port}"

    @property
    def api(self) -> str:
        return f"http://{_bracketed(self.local_host)}:{self.port}"

    @property
    def console(self) -> str:
        return f"http://{_bracketed(self.local_host)}:{self.console_port}"

    @property
    def exchange(self) -> str:
        return f"http://127.0.0.1:{self.exchange_port}"

    @property
    def exchange_admin(self) -> str:
        return f"http://127.0.0.1:{self.exchange_port + 1}"


def announce(addresses: Addresses, log: LogStream, words: str) -> None:
    """Write `words` to the log when every part is ready. Returns at once, because a thread does the waiting."""
    threading.Thread(target=_announce, args=(addresses, log, words), name="readiness", daemon=True).start()


def greeting(addresses: Addresses, passwords: Mapping[str, str], *, operator: str, client: str | None) -> str:
    """The text for when everything is ready. The account `operator` opens the console, and `client` uses the API."""
    api = addresses.api
    missing = [part for part in _WITHOUT if part not in addresses.parts]
    lines = ["", f"Ready, without {' and '.join(missing)}." if missing else "Ready.", ""]
    lines += [f"  Without {part:8} {_WITHOUT[part].format(addresses.exchange)}" for part in missing]
    if "api" in addresses.parts:
        lines += [
            f"  API          {api}/api/v1/",
            f"  Swagger UI   {api}/api/v1/docs",
            f"  ReDoc        {api}/api/v1/redoc",
            f"  Health       {api}/healthz  {api}/readyz",
        ]
    if "console" in addresses.parts:
        secret = passwords.get(operator)
        lines.append(
            f"  Console      {addresses.console}/admin/" + (f"  as {operator}, password {secret}" if secret else "")
        )
    if "exchange" in addresses.parts:
        faults = f"{addresses.exchange_admin}/admin/faults"
        lines.append(f"  Exchange     {addresses.exchange}  its faults: {faults}")
    if "api" in addresses.parts and client:
        lines += ["", *_first_order(addresses, client, passwords.get(client))]
    return "\n".join([*lines, "", "Ctrl-C stops everything.", "", ""])


def _first_order(addresses: Addresses, client: str, password: str | None) -> list[str]:
    if password:
        lines = ["A first order, to be pasted into another terminal:"]
    else:
        lines = [
            f"A first order. {client}'s password was shown when the account was made, and only then.",
            f"This sets a new one, to be put in place of PASSWORD: python3 manage.py changepassword {client}",
        ]
    login = json.dumps({"username": client, "password": password or "PASSWORD"})
    json_type = "-H 'Content-Type: application/json'"
    cut_out = """sed -n 's/.*"access": *"\\([^"]*\\)".*/\\1/p'"""
    bearer = '-H "Authorization: Bearer $TOKEN"'
    order = {**_ORDER, "client_order_id": f"first-{secrets.token_hex(3)}"}  # a new id at every start
    return [
        *lines,
        "",
        f"API={addresses.api}/api/v1 EXCHANGE={addresses.exchange_admin}",
        f"ANSWER=$(curl -sS $API/auth/token {json_type} -d '{login}')",
        f"""TOKEN=$(echo "$ANSWER" | {cut_out}); [ "$TOKEN" ] || echo "No token: $ANSWER\"""",
        f"curl -i $API/orders {bearer} {json_type} -d '{json.dumps(order)}'",
        "",
        "It answers 201 Created with the order, pending. docs/tutorial.md goes on from here, in the same terminal.",
    ]


def _announce(addresses: Addresses, log: LogStream, words: str) -> None:
    begun = time.monotonic()
    late_at = begun + _LONG_SECONDS
    while missing := _missing(addresses, begun):
        if time.monotonic() > late_at:
            log.say(f"Still waiting for the {missing}. The lines above may say why.")
            late_at = float("inf")
        time.sleep(0.1)
    log.block(words)


def _missing(addresses: Addresses, begun: float) -> str:
    """The first part that is not ready yet, or nothing."""
    if "exchange" in addresses.parts and not listens(addresses.exchange_port):
        return "exchange"
    if (
        "console" in addresses.parts
        and answer_of(addresses.console_port, "/healthz", host=addresses.local_host) is None
    ):
        return "console"
    if "api" not in addresses.parts:
        return ""
    checks = _checks(addresses)
    if checks is None:
        return "api"
    if not checks.get("database", {}).get("ok"):
        return "database"
    heartbeat_age = checks.get("job_cluster", {}).get("heartbeat_age_seconds")
    # The latest heartbeat may be that of an earlier worker.
    beats = isinstance(heartbeat_age, float) and heartbeat_age < time.monotonic() - begun
    return "worker" if "worker" in addresses.parts and not beats else ""


def _checks(addresses: Addresses) -> dict[str, dict[str, object]] | None:
    """What the API's `/readyz` says, or None if it does not answer."""
    answer = answer_of(addresses.port, "/readyz", host=addresses.local_host)
    checks = answer.get("checks") if isinstance(answer, dict) else None
    return checks if isinstance(checks, dict) else None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
