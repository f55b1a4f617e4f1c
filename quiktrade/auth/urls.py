from django.urls import path

from quiktrade.auth.views import ClientTokenView, LogoutView, PasswordView, RefreshView, TokenView, VerifyView

urlpatterns = [
    path("token", TokenView.as_view(), name="token"),
    path("token/refresh", RefreshView.as_view(), name="token-refresh"),
    path("token/verify", VerifyView.as_view(), name="token-verify"),
    path("client-token", ClientTokenView.as_view(), name="client-token"),
    path("logout", LogoutView.as_view(), name="logout"),
    path("password", PasswordView.as_view(), name="password"),
]
