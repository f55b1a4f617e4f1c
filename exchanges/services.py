"""Halts and resumes venues. Each function owns its transaction, takes actor and reason, and writes a VenueEvent."""

import logging

from django.db import transaction
from django.db.models.functions import Now

from exchanges import circuit
from exchanges.models import Venue, VenueEvent
from quiktrade.texts import MAX_ACTOR, kept_reason, storable

logger = logging.getLogger(__name__)


class VenueNotChanged(Exception):
    """Nothing was changed; the message says why."""


class UnknownVenue(VenueNotChanged):
    """There is no venue of that code; the message lists those there are."""


class AlreadyHalted(VenueNotChanged):
    """The venue is halted; the message says by whom and why. Resume it first to halt it for another reason."""


class NotHalted(VenueNotChanged):
    """The venue is not halted, so there is nothing to resume."""


def halt_venue(code: str, *, actor: str, reason: str) -> Venue:
    """Stop sending orders to a venue; they are still accepted, and wait.

    Requests in flight are not withdrawn. Raises: UnknownVenue, AlreadyHalted.
    """
    reason, actor = kept_reason(reason), storable(actor, MAX_ACTOR)
    with transaction.atomic():
        venue = _locked(code)
        if venue.halted:
            since = f"{venue.halted_at:%Y-%m-%d %H:%M:%S} UTC"
            raise AlreadyHalted(f"{code} has been halted since {since} by {venue.halted_by}: {venue.halt_reason}")
        Venue.objects.filter(pk=code).update(halted_at=Now(), halted_by=actor, halt_reason=reason)
        VenueEvent.objects.create(venue=venue, event="halted", actor=actor, reason=reason)
        venue.refresh_from_db()
    logger.warning("Venue halted", extra={"event": "venue.halted", "venue": code, "actor": actor, "reason": reason})
    return venue


def resume_venue(code: str, *, actor: str, reason: str) -> Venue:
    """Send orders to a halted venue again; those that waited are due at once.

    A venue in trouble is probed at once, which ends a pause that it asked for in error.

    Raises: UnknownVenue, NotHalted.
    """
    reason, actor = kept_reason(reason), storable(actor, MAX_ACTOR)
    with transaction.atomic():
        venue = _locked(code)
        if not venue.halted:
            raise NotHalted(f"{code} is not halted.")
        Venue.objects.filter(pk=code).update(halted_at=None, halted_by="", halt_reason="")
        VenueEvent.objects.create(venue=venue, event="resumed", actor=actor, reason=reason)
        circuit.try_now(code)
        venue.refresh_from_db()
    logger.warning("Venue resumed", extra={"event": "venue.resumed", "venue": code, "actor": actor, "reason": reason})
    return venue


def _locked(code: str) -> Venue:
    """Read and lock the venue's row, so that the second of two operators finds it already halted."""
    venue = Venue.objects.select_for_update().filter(pk=storable(code)).first()
    if venue is None:
        known = ", ".join(Venue.objects.values_list("code", flat=True)) or "none"
        raise UnknownVenue(f"There is no venue {code!r}. Known: {known}.")
    return venue
