"""What an empty database needs to be tried out: a venue, an operator for the console and two API clients."""

import secrets

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db import transaction

from exchanges.models import Venue

VENUE = "XSIM"
OPERATOR = "operator"
CLIENTS = ("alice", "bob")


@transaction.atomic
def load(exchange_url: str) -> dict[str, str]:
    """Fill a database that has neither users nor venues. Returns passwords by name; none if it was in use.

    They cannot be shown again.
    """
    users = get_user_model().objects
    if users.exists() or Venue.objects.exists():
        return {}
    Venue.objects.create(
        code=VENUE,
        name="Simulated exchange",
        adapter="simulator",
        settings={"url": exchange_url},
        is_default=True,
    )
    passwords = {name: secrets.token_urlsafe(12) for name in (OPERATOR, *CLIENTS)}
    operator = users.create_user(OPERATOR, password=passwords[OPERATOR], is_staff=True)
    operator.groups.add(Group.objects.get(name="Operator"))
    for name in CLIENTS:
        users.create_user(name, password=passwords[name])
    return passwords


def point_venue_at(exchange_url: str) -> bool:
    """Set the address of the simulated venue, if there is one. Returns whether that changed it."""
    venue = Venue.objects.filter(code=VENUE, adapter="simulator").first()
    if venue is None or venue.settings.get("url") == exchange_url:
        return False
    venue.settings = {**venue.settings, "url": exchange_url}
    venue.save(update_fields=["settings"])
    return True
