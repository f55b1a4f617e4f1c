from rest_framework.routers import SimpleRouter

from orders.api.executions import ExecutionViewSet, PositionViewSet
from orders.api.feed import FeedViewSet
from orders.api.views import OrderViewSet

router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("orders", FeedViewSet, basename="feed")  # first: its names are no ids of orders
router.register("orders", OrderViewSet, basename="order")
router.register("executions", ExecutionViewSet, basename="execution")
router.register("positions", PositionViewSet, basename="position")
