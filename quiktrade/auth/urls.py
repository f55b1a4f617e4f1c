from django.urls import path

from quiktrade.auth.views import LogoutView, PasswordView, RefreshView, TokenView, VerifyView

urlpatterns = [
    path("token", TokenView.as_view(), name="token"),
    path("token/refresh", RefreshView.as_view(), name="token-refresh"),
    path("token/verify", VerifyView.as_view(), name="token-verify"),
    path("logout", LogoutView.as_view(), name="logout"),
    path("password", PasswordView.as_view(), name="password"),
]
