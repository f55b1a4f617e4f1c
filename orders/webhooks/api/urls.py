from rest_framework.routers import SimpleRouter

from orders.webhooks.api.views import WebhookViewSet

router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("webhooks", WebhookViewSet, basename="webhook")
