"""The clients. They send each order under one id until it has a definite answer, and record the answers."""

import http.client
import json
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks.faults.records import Asked, ForeignRead, Told
from benchmarks.faults.system import REFUSED_INSTRUMENT

INSTRUMENTS = ("US0378331005", "US5949181045", "DE0007164600")
ANSWER_SECONDS = 5.0
_TRESPASSES: tuple[tuple[str, str, dict[str, Any] | None], ...] = (
    ("GET", "", None),
    ("GET", "/events", None),
    ("GET", "/executions", None),
    ("POST", "/cancel", {}),
    ("POST", "/replace", {"quantity": 1}),
)
_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.05, 1.0


@dataclass(frozen=True, slots=True, order=True)
class FollowUp:
    """What is asked for an order this many seconds after it was accepted: kind is cancel or replace."""

    seconds: float
    kind: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Draft:
    """An order to send, and what else to do with it. Its `place_by` and `expires_at` are seconds from then."""

    body: dict[str, Any]
    follow_ups: tuple[FollowUp, ...]
    repeat: bool
    trespass: bool


def draft(seed: int, number: int) -> Draft:
    """The order of this number: a pure function. Prices are close together, so that many orders trade."""
    dice = random.Random(f"{seed}/order/{number}")  # noqa: S311 - to be repeatable is the point
    kind = dice.choices(("market", "limit", "stop", "stop_limit"), (20, 60, 10, 10))[0]
    body: dict[str, Any] = {
        "client_order_id": f"lab-{seed}-{number}",
        "type": kind,
        "side": dice.choice(("buy", "sell")),
        "instrument": dice.choice(INSTRUMENTS),
        "quantity": dice.randrange(1, 10_000),
    }
    if kind in ("limit", "stop_limit"):
        body["limit_price"] = _price(dice)
    if kind in ("stop", "stop_limit"):
        body["stop_price"] = _price(dice)
    if kind == "limit":
        body["time_in_force"] = dice.choices(("day", "gtc", "ioc", "fok", "gtd"), (40, 30, 10, 5, 15))[0]
        if body["time_in_force"] == "gtd":
            body["expires_at"] = dice.uniform(3, 20)
    chance = dice.random()
    follow_ups: list[FollowUp] = []
    if chance < 0.02:
        body["instrument"] = REFUSED_INSTRUMENT
    elif chance < 0.06:
        body["place_by"] = dice.uniform(1, 8)
    elif chance < 0.26:
        if dice.random() < 0.5:
            _let_it_rest(dice, body)
        after = dice.choice((0.0, 0.0, 0.1, 0.5, 2.0))
        if chance < 0.18:
            follow_ups.append(FollowUp(after, "replace", _replacement(dice, body)))
        if chance > 0.16:
            follow_ups.append(FollowUp(after + dice.choice((0.0, 0.0, 0.2, 1.0)), "cancel", {}))
    return Draft(body, tuple(follow_ups), repeat=dice.random() < 0.03, trespass=dice.random() < 0.03)


def _let_it_rest(dice: random.Random, body: dict[str, Any]) -> None:
    """Make it an order with which nobody trades, unless its price is changed."""
    for name in ("stop_price", "expires_at"):
        body.pop(name, None)
    lowest, highest = (8_000, 9_000) if body["side"] == "buy" else (11_000, 12_000)
    body |= {"type": "limit", "limit_price": f"{dice.randrange(lowest, highest) / 100:.2f}", "time_in_force": "gtc"}


def _price(dice: random.Random) -> str:
    return f"{dice.randrange(9_800, 10_200) / 100:.2f}"


def _replacement(dice: random.Random, body: dict[str, Any]) -> dict[str, Any]:
    """Other terms for an order: another quantity, another price, or both."""
    changes: dict[str, Any] = {"client_order_id": f"{body['client_order_id']}-replaced"}
    if "limit_price" in body and dice.random() < 0.6:
        changes["limit_price"] = _price(dice)
    if len(changes) == 1 or dice.random() < 0.5:
        changes["quantity"] = dice.randrange(1, 12_000)
    return changes


class Traffic:
    """`clients` threads send `rate` orders a second for `seconds`; orders that an outage delayed are sent later."""

    def __init__(
        self, port: int, tokens: dict[str, str], *, seed: int, rate: float, seconds: float, clients: int
    ) -> None:
        self.told: list[Told] = []
        self.foreign_reads: list[ForeignRead] = []
        self.asked: list[Asked] = []
        self.answers: Counter[str] = Counter()
        """Counts by kind: an HTTP status, or what went wrong with the connection."""
        self.planned = int(rate * seconds)
        self.accepted = 0
        self.started_at = 0.0
        """By the clock of time.time()."""
        self._port = port
        self._tokens = tokens
        self._seed = seed
        self._rate = rate
        self._next = 0
        self._latest_ids: dict[str, str] = {}
        """The id of each user's latest order."""
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._abandon = threading.Event()
        names = sorted(tokens)
        self._threads = [
            threading.Thread(target=self._run, args=(names[number % len(names)],), name=f"client-{number}", daemon=True)
            for number in range(clients)
        ]
        # Others ask for what follows an order, so that no client waits for it before the next order.
        self._due: queue.PriorityQueue[tuple[float, str, str, FollowUp]] = queue.PriorityQueue()
        self._followers = [
            threading.Thread(target=self._follow, name=f"follower-{number}", daemon=True) for number in range(clients)
        ]

    @property
    def sent(self) -> int:
        return self._next

    def start(self) -> None:
        self.started_at = time.time()
        for thread in self._everybody:
            thread.start()

    def stop(self) -> None:
        """Begin no more orders. Those begun are sent until they are answered."""
        self._stopping.set()

    def finish(self, seconds: float) -> None:
        """Wait for the clients; after this many seconds they give up what is not answered yet."""
        deadline = time.monotonic() + seconds
        for thread in self._everybody:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._abandon.set()
        for thread in self._everybody:
            thread.join(2 * ANSWER_SECONDS)

    @property
    def running(self) -> bool:
        return any(thread.is_alive() for thread in self._everybody)

    @property
    def _everybody(self) -> list[threading.Thread]:
        return [*self._threads, *self._followers]

    def _run(self, user: str) -> None:
        client = Client(self._port, self._tokens[user], self._count, self._abandon)
        try:
            while (number := self._take()) is not None:
                try:
                    self._submit(user, client, draft(self._seed, number))
                except Exception as error:  # an answer of unforeseen form is reported, and does not end the run
                    self._count(f"an answer that is none: {error!r}"[:100])
        finally:
            client.close()

    def _take(self) -> int | None:
        """Wait until the next order is due, and return its number; None if no more are sent."""
        with self._lock:
            if self._next >= self.planned or self._stopping.is_set():
                return None
            number = self._next
            self._next += 1
        wait = self.started_at + number / self._rate - time.time()
        if wait > 0 and self._stopping.wait(wait):
            return None
        return number

    def _submit(self, user: str, client: "Client", order: Draft) -> None:
        body: dict[str, Any] = dict(order.body)
        for name in ("place_by", "expires_at"):
            if name in body:
                body[name] = (datetime.now(UTC) + timedelta(seconds=body[name])).isoformat()
        told = Told(
            client_order_id=body["client_order_id"],
            owner=user,
            content=(body["instrument"], body["side"], body["type"], body["quantity"]),
            first_sent_at=time.time(),
        )
        with self._lock:
            self.told.append(told)
        self._send(told, client, body)
        if told.accepted_at is None:
            return
        (order_id,) = told.order_ids
        if order.repeat:
            self._send(told, client, body)
        for follow_up in order.follow_ups:
            self._due.put((time.time() + follow_up.seconds, order_id, user, follow_up))
        if order.trespass:
            self._trespass(user, client)
        self._latest_ids[user] = order_id

    def _follow(self) -> None:
        clients = {user: Client(self._port, token, self._count, self._abandon) for user, token in self._tokens.items()}
        try:
            while not self._abandon.is_set():
                try:
                    due, order_id, user, follow_up = self._due.get(timeout=0.5)
                except queue.Empty:
                    if not any(thread.is_alive() for thread in self._threads):
                        return
                    continue
                self._abandon.wait(max(0.0, due - time.time()))
                path = f"/api/v1/orders/{order_id}/{follow_up.kind}"
                status, _ = clients[user].ask("POST", path, follow_up.body)
                self.asked.append(Asked(order_id, follow_up.kind, status, time.time()))
        finally:
            for client in clients.values():
                client.close()

    def _send(self, told: Told, client: "Client", body: dict[str, Any]) -> None:
        status, content = client.ask("POST", "/api/v1/orders", body)
        if status in (200, 201):
            told.order_ids.add(content["id"])
            if told.accepted_at is None:
                told.accepted_at = time.time()
                with self._lock:
                    self.accepted += 1
        elif status:
            told.refused = f"{status} {json.dumps(content)[:300]}"

    def _trespass(self, user: str, client: "Client") -> None:
        for owner, order_id in list(self._latest_ids.items()):
            if owner == user:
                continue
            for method, path, body in _TRESPASSES:
                status, _ = client.ask(method, f"/api/v1/orders/{order_id}{path}", body)
                if status:
                    read = ForeignRead(reader=user, order_id=order_id, http_status=status)
                    self.foreign_reads.append(read)

    def _count(self, kind: str) -> None:
        with self._lock:
            self.answers[kind] += 1


class Client:
    """One client with its own connection, which repeats its requests until they are answered."""

    def __init__(self, port: int, token: str, count: Callable[[str], None], abandon: threading.Event) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._count = count
        self._abandon = abandon

    def ask(self, method: str, path: str, content: Any) -> tuple[int, Any]:
        """The first definite answer, 2xx or 4xx: its status and content. Status 0 if there was none until the end."""
        body = json.dumps(content) if content is not None else None
        backoff = _FIRST_BACKOFF
        while not self._abandon.is_set():
            try:
                self._connection.request(method, path, body, self._headers)
                response = self._connection.getresponse()
                text = response.read()
                self._count(str(response.status))
                if response.status < 500 and response.status != 429:
                    return response.status, json.loads(text)
                if not response.headers["Content-Type"].startswith("application/problem+json"):
                    self._count("5xx that is no problem document")
            except (OSError, http.client.HTTPException, ValueError) as error:
                self._count(type(error).__name__)
                self._connection.close()
            self._abandon.wait(backoff * random.uniform(0.5, 1.0))  # noqa: S311 - only spreads the load
            backoff = min(2 * backoff, _LONGEST_BACKOFF)
        return 0, None

    def close(self) -> None:
        self._connection.close()


def log_in(port: int, passwords: dict[str, str]) -> dict[str, str]:
    """A token for each user. Raises: RuntimeError."""
    tokens = {}
    for name, password in passwords.items():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        body = json.dumps({"username": name, "password": password})
        connection.request("POST", "/api/v1/auth/token", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = json.loads(response.read())
        connection.close()
        if response.status != 200:
            raise RuntimeError(f"{name} cannot log in: {response.status} {content}")
        tokens[name] = content["access"]
    return tokens
