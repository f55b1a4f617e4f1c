"""The console's log-in form."""

from typing import TYPE_CHECKING, Any

from django.contrib.sessions.backends.db import SessionStore
from django.core.exceptions import ValidationError

from quiktrade.auth.guard import TooManyFailures
from quiktrade.auth.turns import Busy

if TYPE_CHECKING:
    from django.contrib.admin.forms import AdminAuthenticationForm as StyledForm
else:
    from unfold.forms import AuthenticationForm as StyledForm


class LogInForm(StyledForm):
    def clean(self) -> dict[str, Any]:
        try:
            cleaned: dict[str, Any] = super().clean()
        except (TooManyFailures, Busy) as refusal:
            raise ValidationError(str(refusal), code=refusal.kind) from None
        SessionStore.clear_expired()  # nothing else deletes the rows of sessions that have run out
        return cleaned
