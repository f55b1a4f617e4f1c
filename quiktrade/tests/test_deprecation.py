"""How clients are told that an operation will end: over views that were made for it."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from django.test import override_settings
from django.urls import URLPattern, URLResolver, include, path
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, viewsets
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter
from rest_framework.test import APIClient
from rest_framework.views import APIView

from quiktrade.api.deprecation import Deprecated

CHANGES = "https://quiktrade.example/changes#desks"
NEW_YEAR = datetime(2030, 1, 1, tzinfo=UTC)
ENDING = Deprecated(since=NEW_YEAR, sunset=datetime(2030, 7, 1, 12, tzinfo=UTC), link=CHANGES)
TOLD = {
    "Deprecation": "@1893456000",
    "Sunset": "Mon, 01 Jul 2030 12:00:00 GMT",
    "Link": f'<{CHANGES}>; rel="deprecation", <{CHANGES}>; rel="sunset"',
}


class DeskSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()


class DeskViewSet(viewsets.GenericViewSet[Any]):
    """Its list will end; its desks will not."""

    serializer_class = DeskSerializer
    pagination_class = None
    permission_classes: list[Any] = []
    authentication_classes: list[Any] = []
    deprecated = {"list": ENDING}

    @extend_schema(responses=DeskSerializer(many=True))
    def list(self, request: Request) -> Response:
        if "page" in request.query_params:
            raise serializers.ValidationError({"query:page": "There is none."})
        return Response([], headers={"Link": '</desks?page=2>; rel="next"'} if "next" in request.query_params else None)

    def retrieve(self, request: Request, pk: str) -> Response:
        return Response({"name": pk})

    def create(self, request: Request) -> Response:
        return Response({"name": "new"}, 201)


class PingView(APIView):
    """Deprecated, and it is not known until when it stays."""

    permission_classes: list[Any] = []
    authentication_classes: list[Any] = []
    deprecated = {"get": Deprecated(since=NEW_YEAR, link=CHANGES)}

    @extend_schema(responses=DeskSerializer)
    def get(self, request: Request) -> Response:
        return Response({"name": "ping"})

    @extend_schema(request=DeskSerializer, responses=DeskSerializer)
    def post(self, request: Request) -> Response:
        return Response({"name": "ping"})


router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("desks", DeskViewSet, basename="desk")
urlpatterns: list[URLPattern | URLResolver] = [path("", include(router.urls)), path("ping", PingView.as_view())]
handler404 = "quiktrade.api.problems.not_found"


def told(response: Any) -> dict[str, str]:
    return {name: response.headers[name] for name in ("Deprecation", "Sunset", "Link") if name in response.headers}


@override_settings(ROOT_URLCONF=__name__)
def test_every_answer_of_what_will_end_says_so() -> None:
    client = APIClient()
    assert told(client.get("/desks")) == told(client.head("/desks")) == TOLD
    refused = client.get("/desks?page=2")
    assert (refused.status_code, told(refused)) == (400, TOLD)


@override_settings(ROOT_URLCONF=__name__)
def test_what_stays_says_nothing() -> None:
    client = APIClient()
    assert told(client.get("/desks/7")) == told(client.post("/desks")) == told(client.put("/desks")) == {}
    assert told(client.post("/ping")) == told(client.get("/nowhere")) == {}


@override_settings(ROOT_URLCONF=__name__)
def test_without_a_sunset_only_the_deprecation_is_told() -> None:
    expected = {"Deprecation": "@1893456000", "Link": f'<{CHANGES}>; rel="deprecation"'}
    assert told(APIClient().get("/ping")) == expected


@override_settings(ROOT_URLCONF=__name__)
def test_a_link_that_the_answer_has_stays() -> None:
    assert APIClient().get("/desks?next=1")["Link"] == f'</desks?page=2>; rel="next", {TOLD["Link"]}'


def test_the_description_of_the_api_says_so_too() -> None:
    generator = SchemaGenerator(patterns=urlpatterns)  # type: ignore[no-untyped-call]
    paths = generator.get_schema(request=None, public=True)["paths"]  # type: ignore[no-untyped-call]
    answer = paths["/desks"]["get"]["responses"]["200"]
    assert (paths["/desks"]["get"]["deprecated"], set(answer["headers"])) == (True, set(TOLD))
    assert paths["/desks"]["get"]["x-sunset"] == "2030-07-01T12:00:00+00:00"
    assert set(paths["/ping"]["get"]["responses"]["200"]["headers"]) == {"Deprecation", "Link"}
    for path_, method in (("/desks", "post"), ("/desks/{id}", "get"), ("/ping", "post")):
        operation = paths[path_][method]
        assert not {"deprecated", "x-sunset"} & operation.keys()
        assert all("Sunset" not in answer.get("headers", {}) for answer in operation["responses"].values())


def test_times_are_told_whatever_their_zone() -> None:
    paris = timezone(timedelta(hours=1))
    since = Deprecated(since=datetime(2030, 1, 1, 1, tzinfo=paris), link=CHANGES)
    assert since.headers()["Deprecation"] == "@1893456000"


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ({"since": datetime(2030, 1, 1)}, "need a time zone"),  # noqa: DTZ001
        ({"since": NEW_YEAR, "sunset": datetime(2031, 1, 1)}, "need a time zone"),  # noqa: DTZ001
        ({"since": NEW_YEAR, "sunset": NEW_YEAR - timedelta(seconds=1)}, "ends after it was deprecated"),
    ],
)
def test_times_that_say_nothing_are_refused(times: dict[str, datetime], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Deprecated(**times, link=CHANGES)
