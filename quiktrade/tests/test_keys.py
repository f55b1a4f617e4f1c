"""The keys that sign tokens: rotation with an overlap, withdrawal, forgeries, and what is published."""

import json
import threading
import time
from datetime import timedelta
from io import StringIO
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone
from rest_framework.test import APIClient

from orders.tests.factories import UserFactory
from quiktrade.auth import keys
from quiktrade.auth.keys import KeyRing, ring
from quiktrade.auth.tokens import AccessToken
from quiktrade.models import SigningKey
from quiktrade.tests.test_api_errors import bearing, check_problem

pytestmark = pytest.mark.django_db

VENUES = "/api/v1/venues"


@pytest.fixture
def alice() -> User:
    user: User = UserFactory(username="alice")
    return user


def command(*arguments: str) -> Any:
    output = StringIO()
    call_command("rotate_keys", *arguments, "--json", stdout=output)
    return json.loads(output.getvalue())["keys"]


def make_time_pass(duration: timedelta) -> None:
    for key in SigningKey.objects.all():
        key.signs_from -= duration
        key.verifies_until = key.verifies_until and key.verifies_until - duration
        key.save()
    ring.forget()


def kid_of(token: object) -> str:
    kid: str = jwt.get_unverified_header(str(token))["kid"]
    return kid


def _decoded(other: KeyRing, token: Any) -> Any:
    return other.decode(token)


def status_with(token: object) -> int:
    return bearing(token).get(VENUES).status_code


def test_a_new_key_signs_when_everybody_knows_it_and_the_old_one_verifies_meanwhile(alice: User) -> None:
    before = str(AccessToken.for_user(alice))
    assert [key["state"] for key in command()] == ["signs", "waits"]
    assert kid_of(AccessToken.for_user(alice)) == kid_of(before)
    assert len(APIClient().get("/.well-known/jwks.json").json()["keys"]) == 2

    make_time_pass(timedelta(minutes=11))
    after = str(AccessToken.for_user(alice))
    assert kid_of(after) != kid_of(before)
    assert (status_with(before), status_with(after)) == (200, 200)
    assert [key["state"] for key in command("--list")] == ["verifies", "signs"]


def test_a_replaced_key_ends_when_the_last_token_that_it_signed_has_run_out(alice: User) -> None:
    token = str(AccessToken.for_user(alice))
    command()
    make_time_pass(timedelta(days=7, minutes=9))
    assert status_with(token) == 200
    make_time_pass(timedelta(minutes=2))
    check_problem(bearing(token).get(VENUES), 401, "invalid-token")
    assert [key["state"] for key in command("--list")] == ["signs"]


@pytest.mark.remembers
def test_a_token_of_a_withdrawn_key_is_void_however_well_it_is_remembered(alice: User) -> None:
    token = str(AccessToken.for_user(alice))
    assert status_with(token) == 200
    (key,) = command("--withdraw", kid_of(token))
    assert key["kid"] != kid_of(token)
    assert status_with(AccessToken.for_user(alice)) == 200
    time.sleep(1.1)  # as long as an account is remembered
    assert status_with(token) == 401


def test_the_key_before_the_withdrawn_one_signs_again_without_an_end(alice: User) -> None:
    before = kid_of(str(AccessToken.for_user(alice)))
    command()
    make_time_pass(timedelta(minutes=11))
    command("--withdraw", kid_of(str(AccessToken.for_user(alice))))
    assert kid_of(str(AccessToken.for_user(alice))) == before
    assert SigningKey.objects.get(pk=before).verifies_until is None


def test_another_process_learns_of_a_withdrawal(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    other, token = KeyRing(), str(AccessToken.for_user(alice))
    assert _decoded(other, token)["user_id"] == str(alice.pk)
    keys.withdraw(kid_of(token))
    monkeypatch.setattr(other, "_read_at", other._read_at - keys.READ_SECONDS)
    assert kid_of(token) not in other.known()


def test_another_process_learns_of_a_new_key_when_it_meets_it(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    other = KeyRing()
    assert other.known() == {}
    monkeypatch.setattr(other, "_read_at", other._read_at - keys.UNKNOWN_SECONDS)
    assert _decoded(other, str(AccessToken.for_user(alice)))["user_id"] == str(alice.pk)


def test_a_key_is_not_rotated_before_the_last_one_signs(alice: User) -> None:
    str(AccessToken.for_user(alice))
    command()
    with pytest.raises(CommandError, match="rotate after that"):
        command()
    with pytest.raises(CommandError, match="no valid key abc"):
        command("--withdraw", "abc")
    assert SigningKey.objects.count() == 2


def test_forged_tokens_are_void(alice: User) -> None:
    claims, key = AccessToken.for_user(alice).payload, ring.signer()
    named: dict[str, Any] = {"headers": {"kid": key.kid}}
    public = ring.published()[0]["x"]
    forged = {
        "no algorithm": jwt.encode(claims, "", "none", **named),
        "the secret key, as before": jwt.encode(claims, settings.SECRET_KEY, "HS256"),
        "the secret key under a kid": jwt.encode(claims, settings.SECRET_KEY, "HS256", **named),
        "the public key as a secret": jwt.encode(claims, public, "HS256", **named),
        "another key under our kid": jwt.encode(claims, Ed25519PrivateKey.generate(), "EdDSA", **named),
        "an unknown kid": jwt.encode(claims, key.private, "EdDSA", headers={"kid": "0" * 16}),
        "no kid": jwt.encode(claims, key.private, "EdDSA"),
    }
    for what, token in forged.items():
        assert status_with(token) == 401, what
    assert status_with(jwt.encode(claims, key.private, "EdDSA", **named)) == 200


def test_anybody_can_verify_a_token_with_what_is_published(alice: User) -> None:
    token = str(AccessToken.for_user(alice))
    response = APIClient().get("/.well-known/jwks.json")
    (published,) = jwt.PyJWKSet.from_dict(response.json()).keys
    assert published.key_id == kid_of(token)
    assert jwt.decode(token, published, algorithms=["EdDSA"])["user_id"] == str(alice.pk)
    assert set(response.json()["keys"][0]) == {"kty", "crv", "x", "kid", "alg", "use"}  # and no `d`
    assert response["Cache-Control"] == "public, max-age=300"
    assert APIClient().post("/.well-known/jwks.json").status_code == 405


def test_a_copy_of_the_database_signs_nothing_and_another_secret_key_ends_every_token(
    alice: User, settings: Any
) -> None:
    token = str(AccessToken.for_user(alice))
    private = ring.signer().private.private_bytes_raw()
    stored = SigningKey.objects.get().private
    assert private.hex() not in stored
    assert len(stored) == 140  # Fernet's: 32 bytes and what encrypts them
    settings.SECRET_KEY = "another" * 10
    ring.forget()
    assert status_with(token) == 401
    assert status_with(AccessToken.for_user(alice)) == 200


@pytest.mark.django_db(transaction=True)
def test_of_several_processes_one_makes_the_first_key() -> None:
    start, made = threading.Barrier(6), []

    def make() -> None:
        other = KeyRing()
        start.wait()
        made.append(other.signer().kid)
        connection.close()

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 1
    assert SigningKey.objects.get().signs_from <= timezone.now()
