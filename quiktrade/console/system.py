"""The console's pages on the system itself: worker nodes, background jobs, users and groups."""

from importlib import import_module
from typing import Any, cast

from django import forms
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.contrib.auth.admin import GroupAdmin as PlainGroupAdmin
from django.contrib.auth.admin import UserAdmin as PlainUserAdmin
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser, Group, Permission, User
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Model, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.crypto import get_random_string
from django.utils.safestring import SafeString
from django_q.models import Failure, OrmQ, Schedule, Success
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminRadioSelectWidget,
)

from quiktrade import limits
from quiktrade.auth import audit, second_factor
from quiktrade.console.pages import ConsoleAdmin, ReadOnlyAdmin, clipped, code, label
from quiktrade.console.times import age, ahead, exact
from quiktrade.models import WorkerNode

# The libraries' own pages are replaced here, or removed for rows that are many and say nothing (successful
# jobs). They must be registered before, whatever the order of INSTALLED_APPS.
import_module("django_q.admin")
for model in (Success, Failure, Schedule, OrmQ, User, Group):
    admin.site.unregister(model)
admin.site.index_title = "Overview"

LEGIBLE = "abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""None of these characters is mistaken for another when it is read out or typed."""
PASSWORD_LENGTH = 20
"""It gives a password 115 bits of entropy."""


def node_state(node: WorkerNode) -> SafeString:
    if (timezone.now() - node.heartbeat_at).total_seconds() > settings.JOBS_STALE_SECONDS:
        return label("Silent", "danger", title="No heartbeat: it was stopped, or its watchdog is replacing it.")
    return label("Working", "success")


@admin.register(WorkerNode)
class WorkerNodeAdmin(ReadOnlyAdmin):
    list_display = ("name", "state", "heartbeat", "running_for")
    list_display_links = None
    ordering = ("name",)

    @admin.display(description="state")
    def state(self, node: WorkerNode) -> SafeString:
        return node_state(node)

    @admin.display(description="last heartbeat")
    def heartbeat(self, node: WorkerNode) -> SafeString:
        return exact(f"{age(node.heartbeat_at)} ago", node.heartbeat_at)

    @admin.display(description="running for")
    def running_for(self, node: WorkerNode) -> SafeString:
        return exact(age(node.started_at), node.started_at)


@admin.register(Schedule)
class ScheduleAdmin(ReadOnlyAdmin):
    list_display = ("name", "job", "every", "next")
    list_display_links = None
    ordering = ("name",)

    @admin.display(description="job")
    def job(self, schedule: Schedule) -> SafeString:
        return code(schedule.func)

    @admin.display(description="runs")
    def every(self, schedule: Schedule) -> str:
        if schedule.schedule_type == Schedule.MINUTES:
            return f"every {schedule.minutes} min"
        return str(schedule.get_schedule_type_display())

    @admin.display(description="next run")
    def next(self, schedule: Schedule) -> SafeString | None:
        return exact(ahead(schedule.next_run), schedule.next_run) if schedule.next_run else None


@admin.register(Failure)
class FailureAdmin(ReadOnlyAdmin):
    """Jobs that raised. Their orders are not lost: their own rows make them due again."""

    list_display = ("job", "stopped", "error")
    fields = ("name", "func", "started", "stopped", "result")
    show_full_result_count = False
    ordering = ("-stopped",)

    @admin.display(description="job")
    def job(self, failure: Failure) -> SafeString:
        return code(failure.func)

    @admin.display(description="error")
    def error(self, failure: Failure) -> SafeString:
        return clipped(str(failure.result).strip().splitlines()[0] if failure.result else "")


@admin.register(OrmQ)
class QueueAdmin(ReadOnlyAdmin):
    """Jobs that wait for a worker. Placement needs no row here: the orders themselves ask for it."""

    list_display = ("job", "key", "due")
    list_display_links = None
    ordering = ("lock",)

    @admin.display(description="job")
    def job(self, queued: OrmQ) -> SafeString:
        return code(queued.func())

    @admin.display(description="due")
    def due(self, queued: OrmQ) -> SafeString | None:
        return exact(ahead(queued.lock), queued.lock) if queued.lock else None


CLIENT = "client"
ACCESS = {
    CLIENT: "API client: submits orders over the API, and cannot come in here",
    "Viewer": "Viewer: looks at orders, venues and the system here",
    "Operator": "Operator: requeues, cancels and reconciles orders and halts venues too",
    "Administrator": "Administrator: keeps venues and accounts too",
}


class NewAccountForm(forms.ModelForm):  # type: ignore[type-arg]
    """The form asks whose account it is. The password is generated, so that nobody chooses another person's."""

    class Meta:
        model = User
        fields = ("username", "email")

    groups_to_give: QuerySet[Group] = Group.objects.none()
    access = forms.ChoiceField(widget=UnfoldAdminRadioSelectWidget())

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        access = self.fields["access"]
        assert isinstance(access, forms.ChoiceField)
        access.choices = [
            (CLIENT, ACCESS[CLIENT]),
            *((str(group.pk), ACCESS.get(group.name, f"{group.name}: comes in here")) for group in self.groups),
        ]

    @property
    def groups(self) -> QuerySet[Group]:
        return self.groups_to_give.order_by("pk")

    @property
    def group(self) -> Group | None:
        """The group of an operator; None for a client."""
        access = self.cleaned_data["access"]
        return None if access == CLIENT else self.groups.get(pk=access)


def _rate(label: str) -> forms.IntegerField:
    return forms.IntegerField(
        label=label,
        required=False,
        min_value=0,
        max_value=settings.MOST_PER_SECOND,
        widget=UnfoldAdminIntegerFieldWidget(),
        show_hidden_initial=True,  # else whoever saves the page would undo what was changed since it was opened
    )


class AccountForm(forms.ModelForm):  # type: ignore[type-arg]
    """An account with its limits, which are a row of their own."""

    orders_per_second = _rate("Orders per second")
    reads_per_second = _rate("Reads per second")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial = {**self.initial, **limits.own(self.instance)}
        for limit in limits.LIMITS:
            if field := self.fields.get(limit.field):
                field.help_text = f"Empty: the default, which is {limit.default or 'no limit'}. 0: no limit."


def permissions_of(user: AbstractBaseUser | AnonymousUser) -> QuerySet[Permission]:
    """What the account may do, or could do once it is active: `get_all_permissions` leaves the latter out."""
    return Permission.objects.filter(Q(user=user.pk) | Q(group__user=user.pk)).distinct()


@admin.register(User)
class UserAdmin(ConsoleAdmin, PlainUserAdmin):  # type: ignore[type-arg]
    """Accounts are made here, and switched off; they are not deleted, because orders and their history name them.
    For the same reason a name stays as it is.

    Nobody grants more than they have: a user who is no superuser can grant only groups whose every permission they
    have, and cannot change accounts that may do more than they may. So neither `change_user` nor a new password for
    another account raises anybody's permissions.
    """

    form, add_form = AccountForm, NewAccountForm
    change_form_template = "console/user.html"
    add_form_template = "admin/change_form.html"
    list_display = ("username", "email", "roles", "is_staff", "is_superuser", "is_active", "last_login")
    list_filter = ("is_staff", "is_superuser", "is_active", "groups")
    add_fieldsets = ((None, {"fields": ("username", "email", "access")}),)
    filter_horizontal = ()

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("groups")

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        only_save = {"show_save_and_add_another": False, "show_save_and_continue": False}
        return super().add_view(request, form_url, {**only_save, **(extra_context or {})})

    @admin.display(description="groups")
    def roles(self, user: User) -> str:
        groups = ", ".join(group.name for group in user.groups.all())
        return groups or ("superuser" if user.is_superuser else "no group" if user.is_staff else "API client")

    @admin.display(description="orders per second")
    def orders_per_second(self, user: User) -> str:
        """For who may not change it."""
        return limits.ORDERS.in_words(limits.own(user)[limits.ORDERS.field])

    @admin.display(description="reads per second")
    def reads_per_second(self, user: User) -> str:
        return limits.READS.in_words(limits.own(user)[limits.READS.field])

    # ---- Who may do what ----

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return super().has_change_permission(request, obj) and (
            request.user.is_superuser or not isinstance(obj, User) or not self._exceeds(obj, request)
        )

    def _exceeds(self, user: User, request: HttpRequest) -> bool:
        """Whether the account may do anything that the requesting user may not."""
        return user.is_superuser or permissions_of(user).exclude(pk__in=permissions_of(request.user)).exists()

    def _groups_to_give(self, request: HttpRequest) -> QuerySet[Group]:
        if request.user.is_superuser:
            return Group.objects.all()
        lacking = Permission.objects.exclude(pk__in=permissions_of(request.user))
        return Group.objects.exclude(permissions__in=lacking)

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return () if obj is None else ("username", "last_login", "date_joined")

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        if obj is None:
            return self.add_fieldsets
        superuser = ("is_superuser",) if request.user.is_superuser else ()
        return (
            (None, {"fields": ("username", "email", "first_name", "last_name")}),
            ("Access", {"fields": ("is_active", "is_staff", "groups", *superuser)}),  # only groups grant permissions
            ("Limits of its use of the API", {"fields": tuple(limit.field for limit in limits.LIMITS)}),
            ("Dates", {"fields": ("last_login", "date_joined")}),
        )

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "groups":
            groups = self._groups_to_give(request)
            return db_field.formfield(queryset=groups, widget=UnfoldAdminCheckboxSelectMultipleWidget())
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    # ---- The log ----

    def log_addition(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        audit.account_made(cast(User, obj), by=f"operator:{request.user.get_username()}")
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        audit.account_changed(cast(User, obj), message, by=f"operator:{request.user.get_username()}")
        return super().log_change(request, obj, message)

    # ---- A new account ----

    def get_form(self, request: HttpRequest, obj: Model | None = None, change: bool = False, **kwargs: Any) -> Any:
        form: Any = super().get_form(request, obj, change=change, **kwargs)
        if obj is None:
            form.groups_to_give = self._groups_to_give(request)
        return form

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if not change:
            obj.is_staff = form.group is not None
            obj.set_unusable_password()  # until `response_add` makes one
        super().save_model(request, obj, form, change)
        if change:
            fields = [limit.field for limit in limits.LIMITS if limit.field in form.changed_data]
            if fields:
                given = {field: form.cleaned_data[field] for field in fields}
                limits.change(obj, given, by=f"operator:{request.user.get_username()}")

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        if not change and form.group is not None:
            form.instance.groups.add(form.group)

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        return self._new_password(request, obj, title=f"Account {obj} is made")

    # ---- Passwords ----

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        user = kwargs.get("obj")
        has_one = user is not None and second_factor.of(user) is not None
        return super().render_change_form(request, {**context, "second_factor": has_one}, *args, **kwargs)

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:
        """Give the account a new password, because the old one is lost."""
        user = self.get_object(request, unquote(id))
        if user is None:
            raise Http404
        if not self.has_change_permission(request, user):
            raise PermissionDenied
        if user.pk == request.user.pk:  # a person at somebody else's open session must not take the account over
            return HttpResponseRedirect(reverse("admin:password_change"))
        if request.method != "POST":
            return self._account_page(request, user, "console/new_password.html", f"New password for {user}")
        with transaction.atomic():
            self.log_change(request, user, "Gave it a new password.")
            return self._new_password(request, user, title=f"{user} has a new password")

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.remove_second_factor)
        urls: list[URLPattern] = super().get_urls()
        return [path("<id>/second-factor/", view, name="auth_user_second_factor"), *urls]

    def remove_second_factor(self, request: HttpRequest, id: str) -> HttpResponse:
        """Take the second factor from an account, because its owner lost the app and the recovery codes."""
        user = self.get_object(request, unquote(id))
        if user is None:
            raise Http404
        if not self.has_change_permission(request, user):
            raise PermissionDenied
        if user.pk == request.user.pk:  # that takes a code
            return HttpResponseRedirect(reverse("second-factor"))
        if request.method != "POST":
            title = f"Remove the second factor of {user}"
            required = second_factor.is_required()
            return self._account_page(request, user, "console/remove_second_factor.html", title, required=required)
        with transaction.atomic():
            if second_factor.remove(user):
                self.log_change(request, user, "Removed its second factor.")
        return HttpResponseRedirect(reverse("admin:auth_user_change", args=[user.pk]))

    def _new_password(self, request: HttpRequest, user: User, *, title: str) -> HttpResponse:
        """The password is shown in this answer only: it is stored nowhere, not even in the session."""
        password = get_random_string(PASSWORD_LENGTH, LEGIBLE)
        user.set_password(password)
        user.save(update_fields=["password"])
        return self._account_page(request, user, "console/password.html", title, password=password)

    def _account_page(
        self, request: HttpRequest, user: User, template: str, title: str, **context: Any
    ) -> HttpResponse:
        request.current_app = self.admin_site.name
        context |= {**self.admin_site.each_context(request), "opts": self.opts, "title": title, "account": user}
        return TemplateResponse(request, template, context)


@admin.register(Group)
class GroupAdmin(ConsoleAdmin, PlainGroupAdmin):
    """Only superusers may change groups: a user who can change a group could grant himself every permission."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_superuser)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return bool(request.user.is_superuser)
