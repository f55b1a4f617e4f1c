import pytest
from rest_framework.test import APIClient

from exchanges.models import Venue
from orders.tests.factories import UserFactory, VenueFactory
from quiktrade.auth.tokens import AccessToken


@pytest.fixture
def venue(db: None) -> Venue:
    return VenueFactory()


@pytest.fixture
def client_of(venue: Venue) -> "ClientOf":
    return ClientOf()


class ClientOf:
    """`client_of("alice")`: an API client that carries a valid token of that user."""

    def __call__(self, username: str) -> APIClient:
        client = APIClient()
        token = AccessToken.for_user(UserFactory(username=username))
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {token}")
        return client


@pytest.fixture
def alice(client_of: ClientOf) -> APIClient:
    return client_of("alice")


@pytest.fixture
def bob(client_of: ClientOf) -> APIClient:
    return client_of("bob")
