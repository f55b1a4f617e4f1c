"""The console's service accounts: made here, given new secrets, and switched off. None is deleted, as no account is."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Max, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldBooleanSwitchWidget

from quiktrade.auth import clients
from quiktrade.auth.scopes import Scope, text_of
from quiktrade.console.pages import ConsoleAdmin, code, label
from quiktrade.console.times import age, exact
from quiktrade.models import ApiClient

SCOPES = {
    Scope.READ: "orders:read: read orders, events, executions and positions",
    Scope.WRITE: "orders:write: submit and replace orders",
    Scope.CANCEL: "orders:cancel: cancel orders",
    Scope.STREAM: "stream: follow the stream, and keep webhooks",
}


class ServiceAccountForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = ApiClient
        fields = ("name", "user", "networks", "expires_at")
        help_texts = {"networks": "Networks that it may be used from, such as 192.0.2.0/24. Empty: from anywhere."}

    scopes = forms.MultipleChoiceField(choices=list(SCOPES.items()), widget=UnfoldAdminCheckboxSelectMultipleWidget())
    enabled = forms.BooleanField(required=False, initial=True, widget=UnfoldBooleanSwitchWidget())

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.initial["scopes"] = self.instance.scope.split()
            self.initial["enabled"] = self.instance.disabled_at is None

    def clean_networks(self) -> str:
        try:
            return clients.networks_of(self.cleaned_data["networks"])
        except ValueError as error:
            raise ValidationError(f"{error}. Write networks such as 192.0.2.0/24, with spaces between them.") from None

    def save(self, commit: bool = True) -> Any:
        self.instance.scope = text_of(frozenset(map(Scope, self.cleaned_data["scopes"])))
        was = self.instance.disabled_at
        self.instance.disabled_at = None if self.cleaned_data["enabled"] else was or timezone.now()
        return super().save(commit)


@admin.register(ApiClient)
class ServiceAccountAdmin(ConsoleAdmin):
    form = ServiceAccountForm
    change_form_template = "console/service_account.html"
    add_form_template = "admin/change_form.html"
    list_display = ("name", "client_id", "user", "scope", "last_use", "state")
    ordering = ("name",)
    fields = ("name", "user", "scopes", "networks", "expires_at", "enabled")

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiClient]:
        found: QuerySet[ApiClient] = super().get_queryset(request)
        return found.select_related("user").annotate(last_used_at=Max("secrets__last_used_at"))

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return () if obj is None else ("user",)  # an account's orders stay with it

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "user":  # whoever works in the console does not trade
            accounts = User.objects.filter(is_active=True, is_staff=False, is_superuser=False)
            kwargs["queryset"] = accounts.order_by("username")
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        only_save = {"show_save_and_add_another": False, "show_save_and_continue": False}
        return super().add_view(request, form_url, {**only_save, **(extra_context or {})})

    @admin.display(description="client id")
    def client_id(self, client: ApiClient) -> SafeString:
        return code(client.pk)

    @admin.display(description="last token")
    def last_use(self, client: Any) -> SafeString | None:
        return exact(f"{age(client.last_used_at)} ago", client.last_used_at) if client.last_used_at else None

    @admin.display(description="state")
    def state(self, client: ApiClient) -> SafeString:
        if client.disabled_at is not None:
            return label("Disabled", "danger")
        if client.expires_at is not None and client.expires_at <= timezone.now():
            return label("Has run out", "warning")
        return label("Active", "success")

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if not change:
            obj.pk = clients.new_id()
        super().save_model(request, obj, form, change)

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        return self._new_secret(request, obj, title=f"Service account {obj} is made")

    # ---- Secrets ----

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.secrets_view)
        urls: list[URLPattern] = super().get_urls()
        return [path("<path:id>/secrets/", view, name="quiktrade_apiclient_secrets"), *urls]

    def secrets_view(self, request: HttpRequest, id: str) -> HttpResponse:
        """Make a secret, or remove one. There are two at most, so that one is replaced without a gap."""
        client: Any = self.get_object(request, id)
        if client is None:
            raise Http404
        if not self.has_change_permission(request, client):
            raise PermissionDenied
        here = reverse("admin:quiktrade_apiclient_secrets", args=[client.pk])
        if request.method != "POST":
            return self._page(request, client, "console/secrets.html", f"Secrets of {client}")
        if removed := request.POST.get("remove", ""):
            if removed.isascii() and removed.isdecimal() and len(removed) < 19:
                gone, _ = client.secrets.filter(pk=int(removed)).delete()
                if gone:
                    self.log_change(request, client, "Removed a secret.")
            return HttpResponseRedirect(here)
        try:
            return self._new_secret(request, client, title=f"{client} has a new secret")
        except ValueError as error:
            messages.error(request, str(error))
            return HttpResponseRedirect(here)

    def _new_secret(self, request: HttpRequest, client: ApiClient, *, title: str) -> HttpResponse:
        """The secret is shown in this answer only: it is stored nowhere, not even in the session."""
        secret = clients.add_secret(client)
        self.log_change(request, client, "Made a secret.")
        return self._page(request, client, "console/secret.html", title, secret=secret)

    def _page(self, request: HttpRequest, client: ApiClient, template: str, title: str, **more: Any) -> HttpResponse:
        request.current_app = self.admin_site.name
        secrets = client.secrets.order_by("pk")
        context = {**self.admin_site.each_context(request), "opts": self.opts, "title": title, "client": client}
        return TemplateResponse(request, template, {**context, "secrets": secrets, **more})
