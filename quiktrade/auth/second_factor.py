"""The second factor of whoever works in the console: codes of an authenticator app (TOTP, RFC 6238).

django-otp computes the codes, slows the guessing of them down, and remembers in the session that one was given. The
key that the app has is encrypted at rest with a key that is derived from `SECRET_KEY`, so a copy of the database alone
gives no codes. Recovery codes are random numbers of 80 bits, for a phone that is lost: each is good once, and only its
SHA-256 is stored. After another secret key only they are left.

A code is good once, in the console and the API together.
"""

import hashlib
import logging
import math
import re
import secrets
import time
from base64 import b32encode
from typing import Any
from urllib.parse import quote, urlencode

from cryptography.fernet import InvalidToken
from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User
from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone
from django_otp.oath import TOTP

from quiktrade.auth.sealing import cipher
from quiktrade.errors import Refusal
from quiktrade.models import RecoveryCode, SecondFactor, Session

logger = logging.getLogger(__name__)

ISSUER = "QuikTrade"
STEP_SECONDS = 30
TOLERANCE = 1
"""The code of the step before and of the step after is right, too: clocks differ, and typing takes time."""
RECOVERY_CODES = 10
MOST_FAILURES = 10
"""The wait doubles with each failure until this many: nobody has to wait for longer than nine minutes."""

_CODE = re.compile(r"[0-9]{6}", re.ASCII)
_RECOVERY_CODE = re.compile(r"[a-z2-7]{16}", re.ASCII)
_PURPOSE = "quiktrade second factors"


class WrongCode(Refusal):
    """The code is wrong, was used before, or has run out."""

    status = 401
    kind = "wrong-code"

    def __init__(self) -> None:
        super().__init__("The code is wrong, or it was used before. Wait for the next one of your authenticator app.")


class TooManyCodes(Refusal):
    """Codes were wrong so often that this one was not looked at."""

    status = 429
    kind = "too-many-requests"

    def __init__(self, seconds: float) -> None:
        self.seconds = max(1, math.ceil(seconds))
        super().__init__(f"The last code was wrong. Try again in {self.seconds} s.")

    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.seconds)}


class CodeNeeded(Refusal):
    """The name and the password are right, and the account has a second factor."""

    status = 401
    kind = "code-needed"

    def __init__(self) -> None:
        super().__init__("This account has a second factor: send `code`, too, with a code of the authenticator app.")


class NotSetUp(Refusal):
    """Everybody who works in the console must have a second factor, and this account has none."""

    status = 403
    kind = "second-factor-missing"

    def __init__(self) -> None:
        super().__init__("This account must have a second factor first. Log in to the console to set it up.")


def is_required() -> bool:
    """Whether everybody who works in the console must have one."""
    return bool(settings.SECOND_FACTOR == "required")


def of(user: AbstractBaseUser | AnonymousUser) -> SecondFactor | None:
    """The second factor that the account has been proved to have."""
    factor: SecondFactor | None = SecondFactor.objects.filter(user=user.pk, confirmed=True).first()
    return factor


def require_set_up(user: AbstractBaseUser) -> None:
    """Raises: NotSetUp, for an account of the console that has none where it must have one."""
    if is_required() and _works_in_console(user) and of(user) is None:
        raise NotSetUp


def _works_in_console(user: Any) -> bool:
    return bool(user.is_staff or user.is_superuser)


def require_code(user: User, code: str | None) -> None:
    """Ask an account of the console for its second factor, where it logs in to the API.

    Raises: CodeNeeded, NotSetUp, WrongCode, TooManyCodes.
    """
    if not _works_in_console(user):
        return
    require_set_up(user)
    if of(user) is None:
        return
    if code is None:
        raise CodeNeeded
    verify(user, code)


# ---- Set-up ----


def begin(user: User) -> SecondFactor | None:
    """Make a new key for an app. It counts for nothing until a code confirms it. None: the account has one already."""
    with transaction.atomic():
        User.objects.select_for_update().get(pk=user.pk)
        if of(user) is not None:
            return None
        SecondFactor.objects.filter(user=user.pk).delete()  # somebody may have looked at the key of an earlier attempt
        key = cipher(_PURPOSE).encrypt(secrets.token_bytes(20)).decode()
        factor: SecondFactor = SecondFactor.objects.create(user=user, key=key, confirmed=False)
        return factor


def begun(user: User) -> SecondFactor | None:
    factor: SecondFactor | None = SecondFactor.objects.filter(user=user.pk, confirmed=False).first()
    return factor


def confirm(user: User, code: str) -> tuple[SecondFactor, list[str]]:
    """Take the first code of the app as its proof. Returns the recovery codes, told this once. Raises: WrongCode.

    The account's sessions of the API end: they were begun with the password alone.
    """
    with transaction.atomic():
        factor = SecondFactor.objects.select_for_update().filter(user=user.pk, confirmed=False).first()
        if factor is None or not _accepts(factor, code):
            raise WrongCode
        factor.confirmed = True
        factor.save()
        codes = _new_codes(factor)
        open_ones = Session.objects.filter(user=user.pk, revoked_at=None)
        open_ones.update(revoked_at=Now(), revoked_for="second factor")
    logger.info("Second factor set up", extra={"event": "auth.second_factor_set_up", "account_id": user.pk})
    return factor, codes


def base32_of(factor: SecondFactor) -> str:
    """The key as people type it into an app."""
    return b32encode(_key(factor)).decode()


def address_of(factor: SecondFactor) -> str:
    """The key as an app reads it from a picture (otpauth://)."""
    about = {"secret": base32_of(factor), "issuer": ISSUER, "digits": 6, "period": STEP_SECONDS}
    return f"otpauth://totp/{quote(f'{ISSUER}:{factor.user.get_username()}')}?{urlencode(about, quote_via=quote)}"


# ---- Use ----


def verify(user: AbstractBaseUser | AnonymousUser, code: str) -> SecondFactor:
    """Check a code of the app or a recovery code, and use it up. Raises: WrongCode, TooManyCodes."""
    with transaction.atomic():
        mine = SecondFactor.objects.select_for_update().filter(user=user.pk, confirmed=True)
        factor: SecondFactor | None = mine.first()
        if factor is None:
            raise WrongCode
        allowed, why = factor.verify_is_allowed()
        if not allowed:
            raise TooManyCodes((why["locked_until"] - timezone.now()).total_seconds())
        right = _accepts(factor, code)
        if right:
            factor.throttle_reset(commit=False)
        else:
            factor.throttle_increment(commit=False)
            factor.throttling_failure_count = min(factor.throttling_failure_count, MOST_FAILURES)
        factor.save()
    if not right:
        logger.warning("Wrong second factor", extra={"event": "auth.second_factor_wrong", "account_id": user.pk})
        raise WrongCode
    return factor


def renew_codes(factor: SecondFactor) -> list[str]:
    """Make new recovery codes, which are told this once. The earlier ones are void."""
    with transaction.atomic():
        SecondFactor.objects.select_for_update().get(pk=factor.pk)
        factor.recovery_codes.all().delete()
        codes = _new_codes(factor)
    logger.info("Recovery codes made", extra={"event": "auth.recovery_codes_made", "account_id": factor.user_id})
    return codes


def remove(user: AbstractBaseUser | AnonymousUser) -> bool:
    """Take the second factor from an account. Returns whether it had one."""
    _, deleted = SecondFactor.objects.filter(user=user.pk).delete()
    if deleted:
        logger.warning("Second factor removed", extra={"event": "auth.second_factor_removed", "account_id": user.pk})
    return bool(deleted)


def _accepts(factor: SecondFactor, code: str) -> bool:
    code = "".join(code.split()).replace("-", "").lower()
    if _CODE.fullmatch(code):
        return _accepts_app(factor, int(code))
    if _RECOVERY_CODE.fullmatch(code):
        used, _ = factor.recovery_codes.filter(digest=_digest(code)).delete()
        return bool(used)
    return False


def _accepts_app(factor: SecondFactor, code: int) -> bool:
    try:
        app = TOTP(_key(factor), STEP_SECONDS)
        app.time = time.time()  # so that all its answers are about the same moment
    except InvalidToken:  # it was encrypted under another secret key
        logger.error("Second factor unreadable", extra={"event": "auth.second_factor_unreadable"})
        return False
    if not app.verify(code, TOLERANCE, factor.last_step + 1):
        return False
    factor.last_step = app.t()
    factor.key = cipher(_PURPOSE).rotate(factor.key.encode()).decode()  # under the secret key of today
    return True


def _key(factor: SecondFactor) -> bytes:
    return cipher(_PURPOSE).decrypt(factor.key.encode())


def _new_codes(factor: SecondFactor) -> list[str]:
    codes = [b32encode(secrets.token_bytes(10)).decode().lower() for _ in range(RECOVERY_CODES)]
    RecoveryCode.objects.bulk_create(RecoveryCode(second_factor=factor, digest=_digest(code)) for code in codes)
    return ["-".join(code[start : start + 4] for start in range(0, 16, 4)) for code in codes]


def _digest(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()
