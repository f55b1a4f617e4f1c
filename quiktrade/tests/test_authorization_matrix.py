"""Who may do what: every operation of the API, asked for by everybody, and every page of the console.

The endpoints come from the table of URLs, and what is expected of them from the tables below. One that is not expected
is a failure, so that nobody adds one without saying who may use it.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any, NamedTuple

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models.functions import Now
from django.urls import URLPattern, URLResolver, get_resolver
from drf_spectacular.generators import SchemaGenerator
from rest_framework.test import APIClient

from exchanges.models import Venue
from orders.models import Order
from orders.tests.factories import OrderFactory, UserFactory, VenueFactory
from orders.webhooks import services
from quiktrade.auth import clients, keys, sessions
from quiktrade.auth.keys import ring
from quiktrade.auth.scopes import Scope
from quiktrade.auth.tokens import AccessToken, RefreshToken
from quiktrade.auth.views import TokenThrottle

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

PROTECTED = """
  method  route                                                              scope          own  another
  GET     api/v1/orders                                                      orders:read    200  200
  POST    api/v1/orders                                                      orders:write   201  201
  POST    api/v1/orders/batch                                                orders:write   200  200
  POST    api/v1/orders/cancel                                               orders:cancel  202  202
  GET     api/v1/orders/events                                               orders:read    200  200
  GET     api/v1/orders/stream                                               stream         200  200
  GET     api/v1/orders/<str:pk>                                             orders:read    200  404
  POST    api/v1/orders/<str:pk>/cancel                                      orders:cancel  202  404
  POST    api/v1/orders/<str:pk>/replace                                     orders:write   202  404
  GET     api/v1/orders/<str:pk>/events                                      orders:read    200  404
  GET     api/v1/orders/<str:pk>/executions                                  orders:read    200  404
  GET     api/v1/executions                                                  orders:read    200  200
  GET     api/v1/positions                                                   orders:read    200  200
  GET     api/v1/venues                                                      none           200  200
  GET     api/v1/venues/<str:code>                                           none           200  200
  GET     api/v1/webhooks                                                    stream         200  200
  POST    api/v1/webhooks                                                    stream         201  201
  GET     api/v1/webhooks/<str:pk>                                           stream         200  404
  PATCH   api/v1/webhooks/<str:pk>                                           stream         200  404
  DELETE  api/v1/webhooks/<str:pk>                                           stream         204  404
  POST    api/v1/webhooks/<str:pk>/disable                                   stream         200  404
  POST    api/v1/webhooks/<str:pk>/enable                                    stream         200  404
  POST    api/v1/webhooks/<str:pk>/rotate                                    stream         200  404
  POST    api/v1/webhooks/<str:pk>/test                                      stream         200  404
  POST    api/v1/webhooks/<str:pk>/replay                                    stream         200  404
  GET     api/v1/webhooks/<str:pk>/deliveries                                stream         200  404
  POST    api/v1/webhooks/<str:pk>/deliveries/<str:delivery_id>/resend       stream         200  404
  POST    api/v1/auth/password                                               all            204  204
"""
"""Those that need a token: the scope that it needs, what their own client is answered, and what another client."""

PUBLIC = """
  method  route                      everybody
  GET     .well-known/jwks.json      200
  GET     api/v1                     200
  GET     api/v1/schema              200
  GET     api/v1/docs                200
  GET     api/v1/redoc               200
  POST    api/v1/auth/token          400
  POST    api/v1/auth/token/refresh  400
  POST    api/v1/auth/token/verify   400
  POST    api/v1/auth/client-token   400
  POST    api/v1/auth/logout         400
"""
"""Those that need none: what everybody is answered, whatever token comes along. 400: the body, which is empty."""


class Expected(NamedTuple):
    scope: str
    own: int
    another: int


def rows(table: str) -> Iterator[list[str]]:
    _, *lines = table.strip().splitlines()
    return (line.split() for line in lines)


NEEDS_TOKEN = {
    (method, route): Expected(scope, int(own), int(other)) for method, route, scope, own, other in rows(PROTECTED)
}
NEEDS_NONE = {(method, route): int(code) for method, route, code in rows(PUBLIC)}
ASKING = ("own", "anonymous", "Operator")
ONLY_READ = {".well-known/jwks.json", "api/v1/schema", "api/v1/docs", "api/v1/redoc"}
ROUTES = {route for _, route in (*NEEDS_TOKEN, *NEEDS_NONE)}


def url_table(resolver: URLResolver | None = None, before: str = "") -> Iterator[tuple[str, URLPattern]]:
    """Each route of the table of URLs."""
    for pattern in (resolver or get_resolver()).url_patterns:
        route = before + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from url_table(pattern, route)
        else:
            yield route, pattern


def offered(pattern: URLPattern) -> set[str]:
    """The methods that a view of Django REST framework takes."""
    view: Any = pattern.callback
    named = getattr(view, "actions", None) or [name for name in view.cls.http_method_names if hasattr(view.cls, name)]
    return {name.upper() for name in named} - {"HEAD", "OPTIONS"}


def test_every_operation_of_the_api_is_expected() -> None:
    found = {
        (method, route) for route, pattern in url_table() if route.startswith("api/") for method in offered(pattern)
    }
    assert found | {("GET", ".well-known/jwks.json")} == {*NEEDS_TOKEN, *NEEDS_NONE}
    elsewhere = {route for route, _ in url_table() if not route.startswith(("api/", "admin/"))}
    assert elsewhere == {".well-known/jwks.json", ""}  # the empty one leads to the documents


class World(NamedTuple):
    """What belongs to alice, and what a request needs to be a good one."""

    order: Order
    venue: Venue
    webhook: Any
    delivery: Any
    alice: User
    bob: User

    def path(self, route: str) -> str:
        pk = self.webhook.pk if "webhooks" in route else self.order.pk
        named = {"<str:pk>": pk, "<str:code>": self.venue.pk, "<str:delivery_id>": self.delivery.pk}
        for part, value in named.items():
            route = route.replace(part, str(value))
        return f"/{route}"

    def body(self, method: str, route: str) -> Any:
        order = {"type": "market", "side": "buy", "instrument": "US0378331005", "quantity": 1}
        bodies: dict[tuple[str, str], Any] = {
            ("POST", "api/v1/orders"): order,
            ("POST", "api/v1/orders/batch"): {"orders": [order]},
            ("POST", "api/v1/orders/cancel"): {"all": True},
            ("POST", "api/v1/orders/<str:pk>/replace"): {"quantity": 90},
            ("POST", "api/v1/webhooks"): {"url": "https://example.com/another"},
            ("PATCH", "api/v1/webhooks/<str:pk>"): {"description": "changed"},
            ("POST", "api/v1/webhooks/<str:pk>/replay"): {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"},
            ("POST", "api/v1/auth/password"): {"old_password": PASSWORD, "new_password": "battery staple"},
        }
        return bodies.get((method, route), {} if method in ("POST", "PUT", "PATCH") else None)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(TokenThrottle, "THROTTLE_RATES", {"token": "1000/s"})
    monkeypatch.setattr(SchemaGenerator, "get_schema", lambda *_, **__: {})  # it takes half a second each time
    venue = VenueFactory()
    alice, bob = (UserFactory(username=name, password=PASSWORD) for name in ("alice", "bob"))
    webhook = services.create_endpoint(alice.pk, url="https://example.com/hook")
    order = OrderFactory(owner=alice, status="placed", venue=venue)
    return World(order, venue, webhook, services.send_test(webhook), alice, bob)


def token_of(user: User, *, without: str = "") -> str:
    return str(AccessToken.for_user(user, " ".join(scope for scope in Scope if scope != without)))


def forged(user: User) -> dict[str, str]:
    claims, key = AccessToken.for_user(user).payload, ring.signer()
    named: dict[str, Any] = {"headers": {"kid": key.kid}}
    head, _, signature = token_of(user).split(".")
    others = jwt.encode({**claims, "user_id": str(user.pk + 1)}, key.private, "EdDSA", **named).split(".")[1]
    return {
        "forged: no algorithm": jwt.encode(claims, "", "none", **named),
        "forged: with the secret key": jwt.encode(claims, settings.SECRET_KEY, "HS256"),
        "forged: with the secret key, under our kid": jwt.encode(claims, settings.SECRET_KEY, "HS256", **named),
        "forged: with the public key": jwt.encode(claims, ring.published()[0]["x"], "HS256", **named),
        "forged: with a key of its own, under our kid": jwt.encode(
            claims, Ed25519PrivateKey.generate(), "EdDSA", **named
        ),
        "forged: under a kid that there is not": jwt.encode(claims, key.private, "EdDSA", headers={"kid": "0" * 16}),
        "forged: under no kid": jwt.encode(claims, key.private, "EdDSA"),
        "forged: with other claims than were signed": f"{head}.{others}.{signature}",
    }


def expired(user: User) -> str:
    token = AccessToken.for_user(user)
    token.set_exp(lifetime=timedelta(seconds=-60))
    return str(token)


def of_an_ended_session(user: User) -> str:
    refresh = RefreshToken.for_user(user)
    sessions.end(refresh.session_id)
    return str(refresh.access_token)


def of_a_service_account(user: User, **changes: Any) -> str:
    client = clients.create(user=user, name="bot", scope=" ".join(Scope), networks=changes.pop("networks", ""))
    type(client).objects.filter(pk=client.pk).update(**changes)
    return str(AccessToken.for_client(client, client.scope))


def of_a_closed_account() -> str:
    user = UserFactory()
    token = token_of(user)
    User.objects.filter(pk=user.pk).update(is_active=False)
    return token


def of_an_earlier_password() -> str:
    user = UserFactory(password="as it was")
    token = token_of(user)
    user.set_password("as it is")
    user.save()
    return token


def callers(world: World) -> dict[str, tuple[Callable[[str, Expected], int], str]]:
    """Everybody who may come: what is expected of an operation's row, and the token that comes along."""
    alice = world.alice
    withdrawn = token_of(alice)
    keys.withdraw(ring.signer().kid)  # from here on, another key signs

    def always(code: int) -> Callable[[str, Expected], int]:
        return lambda route, row: code

    def own(route: str, row: Expected) -> int:
        return row.own

    def another(route: str, row: Expected) -> int:
        return row.another

    def service_account(route: str, row: Expected) -> int:
        return 403 if route == "api/v1/auth/password" else row.own

    def lacks(scope: str) -> Callable[[str, Expected], int]:
        return lambda route, row: 403 if row.scope in (scope, "all") else row.own

    void = {
        "anonymous": "",
        "expired": expired(alice),
        **forged(alice),
        "withdrawn key": withdrawn,
        "refresh token used as access": str(RefreshToken.for_user(alice)),
        "ended session": of_an_ended_session(alice),
        "closed account": of_a_closed_account(),
        "earlier password": of_an_earlier_password(),
        "disabled service account": of_a_service_account(alice, disabled_at=Now()),
        "service account that has run out": of_a_service_account(alice, expires_at=Now()),
        "no token at all": "x",
    }
    staff = {role: token_of(UserFactory(group=role)) for role in ("Viewer", "Operator", "Administrator")}
    elsewhere = of_a_service_account(alice, networks="192.0.2.0/24")
    return {
        "own": (own, token_of(alice)),
        "another client": (another, token_of(world.bob)),
        "service account": (service_account, of_a_service_account(alice)),
        **{f"without {scope}": (lacks(scope), token_of(alice, without=scope)) for scope in Scope},
        **{name: (always(401), token) for name, token in void.items()},
        **{name: (always(403), token) for name, token in staff.items()},
        "superuser": (always(403), token_of(UserFactory(is_staff=True, is_superuser=True))),
        "service account from a wrong network": (always(403), elsewhere),
    }


def asked(world: World, token: str, method: str, route: str) -> Any:
    """The answer, whose effects are undone."""
    client = APIClient(HTTP_AUTHORIZATION=f"Bearer {token}") if token else APIClient()
    if (method, route) == ("GET", "api/v1/orders/stream"):
        method = "HEAD"  # the GET would not end
    body = world.body(method, route)
    content = () if body is None else (json.dumps(body), "application/json")
    with transaction.atomic():
        response = client.generic(method, world.path(route), *content)
        transaction.set_rollback(True)
    return response


def differences(world: World, cells: Iterable[tuple[str, str, str, str, int]]) -> list[str]:
    """What is answered otherwise than expected. A cell is a method, a route, who asks, their token and the code."""
    wrong = []
    for method, route, name, token, code in cells:
        response = asked(world, token, method, route)
        if response.status_code != code:
            wrong.append(f"{method} {route}, {name}: {response.status_code}, and not {code}")
        if name == "another client" and str(world.order.pk) in str(getattr(response, "content", b"")):
            wrong.append(f"{method} {route}, {name}: shows alice's order")
    return wrong


def test_everybody_is_answered_as_the_tables_say(world: World) -> None:
    everybody = callers(world)
    assert len(everybody) == 30
    cells = [
        (method, route, name, token, expected(route, row))
        for (method, route), row in NEEDS_TOKEN.items()
        for name, (expected, token) in everybody.items()
    ]
    cells += [
        (method, route, name, token, code)
        for (method, route), code in NEEDS_NONE.items()
        for name, (_, token) in everybody.items()
    ]
    assert not (wrong := differences(world, cells)), "\n".join(wrong)


def test_what_is_not_offered_is_refused_and_a_head_is_judged_as_the_get(world: World) -> None:
    """OPTIONS, which names the methods, is answered to whoever may ask."""
    tokens = {name: token for name, (_, token) in callers(world).items()}
    cells = []
    for route in sorted(ROUTES):
        needs_token = any((method, route) in NEEDS_TOKEN for method in METHODS)
        refused = {"anonymous": 401, "Operator": 403} if needs_token else {}
        for method in METHODS:
            key = ("GET" if method == "HEAD" else method, route)
            good = NEEDS_TOKEN[key].own if key in NEEDS_TOKEN else NEEDS_NONE.get(key, 405)
            if method == "OPTIONS" and route not in ONLY_READ:
                good = 200
            cells += [(method, route, name, tokens[name], refused.get(name, good)) for name in ASKING]
    assert not (wrong := differences(world, cells)), "\n".join(wrong)
