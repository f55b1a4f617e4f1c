"""The console's pages on the system itself: worker nodes, background jobs, users and groups."""

from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as PlainGroupAdmin
from django.contrib.auth.admin import UserAdmin as PlainUserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import Model
from django.http import HttpRequest
from django.utils import timezone
from django.utils.safestring import SafeString
from django_q.models import Failure, OrmQ, Schedule, Success
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from exchanges.console.pages import ConsoleAdmin, ReadOnlyAdmin, clipped, code, label
from exchanges.console.times import age, ahead, exact
from quiktrade.models import WorkerNode

# Their own pages are replaced here or, for the rows that come by the thousand and tell nothing (successful jobs,
# tokens), taken away. They must have been registered first, whatever the order of INSTALLED_APPS.
for module in ("django_q.admin", "rest_framework_simplejwt.token_blacklist.admin"):
    import_module(module)
for model in (Success, Failure, Schedule, OrmQ, OutstandingToken, BlacklistedToken, User, Group):
    admin.site.unregister(model)
admin.site.index_title = "Overview"


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
    """Jobs that raised. Their orders are not lost: they come back by their own rows."""

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


@admin.register(User)
class UserAdmin(ConsoleAdmin, PlainUserAdmin):  # type: ignore[type-arg]
    """Accounts are made here, and switched off; they are not deleted, because orders and their history name them.

    What makes somebody a superuser is for superusers alone: `change_user` must not be a way up.
    """

    form, add_form, change_password_form = UserChangeForm, UserCreationForm, AdminPasswordChangeForm
    list_display = ("username", "email", "roles", "is_staff", "is_superuser", "is_active", "last_login")
    list_filter = ("is_staff", "is_superuser", "is_active", "groups")

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("groups")

    @admin.display(description="groups")
    def roles(self, user: User) -> str:
        return ", ".join(group.name for group in user.groups.all()) or ("superuser" if user.is_superuser else "client")

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        if isinstance(obj, User) and obj.is_superuser and not request.user.is_superuser:
            return False
        return super().has_change_permission(request, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        dates = ("last_login", "date_joined")
        return dates if request.user.is_superuser else (*dates, "is_superuser", "user_permissions")


@admin.register(Group)
class GroupAdmin(ConsoleAdmin, PlainGroupAdmin):
    pass
