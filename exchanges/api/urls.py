from rest_framework.routers import SimpleRouter

from exchanges.api.views import VenueViewSet

router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("venues", VenueViewSet, basename="venue")
