"""The console's page of one's own second factor: where it is asked for, set up and removed."""

from collections.abc import Callable
from typing import Any

import django_otp
import segno
from django import forms
from django.conf import settings
from django.contrib import admin
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme, urlencode
from django.utils.safestring import SafeString, mark_safe
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminTextInputWidget

from quiktrade.auth import second_factor
from quiktrade.auth.guard import TooManyFailures
from quiktrade.auth.turns import Busy
from quiktrade.errors import Refusal
from quiktrade.models import SecondFactor

_CODE = {"autocomplete": "one-time-code", "inputmode": "text", "autofocus": True}


class CodeForm(forms.Form):
    """A code for a second factor that is set up already."""

    code = forms.CharField(max_length=30, widget=UnfoldAdminTextInputWidget(attrs=_CODE))

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.request = request

    def clean_code(self) -> str:
        code: str = self.cleaned_data["code"]
        try:
            second_factor.verify(self.request.user, code)
        except Refusal as refusal:
            raise ValidationError(str(refusal), refusal.kind) from None
        return code


class SetUpForm(forms.Form):
    """The password is asked for again: whoever sits down at somebody else's open session has to know it."""

    password = forms.CharField(
        strip=False, max_length=4096, widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "current-password"})
    )
    code = forms.CharField(max_length=30, widget=UnfoldAdminTextInputWidget(attrs={**_CODE, "autofocus": False}))

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.request = request

    def clean_password(self) -> None:
        name = self.request.user.get_username()
        try:
            account = authenticate(self.request, username=name, password=self.cleaned_data["password"])
        except (TooManyFailures, Busy) as refusal:
            raise ValidationError(str(refusal), refusal.kind) from None
        if account is None or account.pk != self.request.user.pk:
            raise ValidationError("It is not your password.", "wrong_password")


def required(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Show nobody a page who has a second factor, or must have one, and has not given a code of it in this session."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.path_info.startswith("/admin") and request.path_info not in _open() and _lacks_code(request):
            here = {"next": request.get_full_path()} if request.method == "GET" else {}
            return HttpResponseRedirect(f"{reverse('second-factor')}?{urlencode(here)}".rstrip("?"))
        return get_response(request)

    return middleware


def _open() -> tuple[str, ...]:
    return reverse("admin:login"), reverse("admin:logout"), reverse("second-factor")


def _lacks_code(request: HttpRequest) -> bool:
    user: Any = request.user
    if not user.is_authenticated or user.is_verified():
        return False
    return second_factor.is_required() or second_factor.of(user) is not None


@never_cache
@sensitive_post_parameters()
def page(request: HttpRequest) -> HttpResponse:
    user: Any = request.user
    if not admin.site.has_permission(request):
        return HttpResponseRedirect(reverse("admin:login"))
    factor = second_factor.of(user)
    if factor is None:
        return _set_up(request, user)
    return _keep(request, factor) if user.is_verified() else _ask(request)


def _ask(request: HttpRequest) -> HttpResponse:
    form = CodeForm(request, request.POST or None)
    if not form.is_valid():
        return _page(request, "Second factor", form=form, asked=True)
    _remember(request)
    return HttpResponseRedirect(_next(request))


def _set_up(request: HttpRequest, user: User) -> HttpResponse:
    """Each time that the page is opened there is another key, so that nobody who saw one before has it."""
    form = SetUpForm(request, request.POST or None)
    wrong = bool(request.POST) and not form.is_valid()
    if form.is_bound and not wrong:
        try:
            _, codes = second_factor.confirm(user, form.cleaned_data["code"])
        except Refusal as refusal:
            form.add_error("code", str(refusal))
        else:
            _remember(request)
            return _page(request, "Recovery codes", codes=codes, next=_next(request))
    factor = (second_factor.begun(user) if form.is_bound else None) or second_factor.begin(user)
    if factor is None:  # it was set up in another window meanwhile
        return HttpResponseRedirect(request.get_full_path())
    key = second_factor.base32_of(factor)
    return _page(request, "Set up a second factor", form=form, key=key, picture=_picture(factor))


def _keep(request: HttpRequest, factor: SecondFactor) -> HttpResponse:
    form = CodeForm(request, request.POST or None)
    if form.is_valid() and request.POST.get("do") == "codes":
        return _page(request, "Recovery codes", codes=second_factor.renew_codes(factor), next=reverse("admin:index"))
    if form.is_valid() and request.POST.get("do") == "remove":
        second_factor.remove(request.user)
        return HttpResponseRedirect(reverse("second-factor" if second_factor.is_required() else "admin:index"))
    left = factor.recovery_codes.count()
    return _page(request, "Your second factor", form=form, left=left)


def _remember(request: HttpRequest) -> None:
    """Note in the session that a code was given, under a new session key: nobody may know the one before."""
    request.session.cycle_key()
    django_otp.login(request, second_factor.of(request.user))


def _next(request: HttpRequest) -> str:
    wanted = request.GET.get("next", "")
    if url_has_allowed_host_and_scheme(wanted, {request.get_host()}, require_https=request.is_secure()):
        return wanted
    return reverse("admin:index")


def _picture(factor: SecondFactor) -> SafeString:
    code = segno.make(second_factor.address_of(factor), error="m")
    return mark_safe(code.svg_inline(scale=4, border=3, dark="#000", light="#fff"))  # noqa: S308  segno's own


def _page(request: HttpRequest, title: str, **context: Any) -> HttpResponse:
    shown = {"title": title, "site_title": settings.UNFOLD["SITE_TITLE"], "required": second_factor.is_required()}
    return TemplateResponse(
        request, "console/second_factor.html", {**admin.site.each_context(request), **shown, **context}
    )
