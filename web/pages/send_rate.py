"""The sending rate, for admins: what holds, what was learned, and the form that sets it for all workers."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from config.settings import Settings
from db.connect import Connection
from monitoring import sending
from schemas.errors import RefusedError
from schemas.text import storable
from web import actions
from web.auth.current_user import AdminUser, CurrentUser
from web.dependencies import Config, Database
from web.pages.parameters import FormText, Notice
from web.pages.rendering import fragment, page, redirect

router = APIRouter(include_in_schema=False)


@router.get("/system/rate")
def show_rate(user: AdminUser, conn: Database, config: Config, notice: Notice = "") -> HTMLResponse:
    """What holds, and the form."""
    return _rate(user, conn, config, notice=notice)


@router.get("/system/rate/now")
def show_now(user: AdminUser, request: Request, conn: Database, config: Config) -> HTMLResponse:
    """Fragment: the rates in force, and what was learned."""
    now = sending.read(conn, config.send_rates)
    return fragment(request, "send_rate", title="Sending rate", back="/system", user=user, sending=now)


@router.post("/system/rate")
def set_rate(
    user: AdminUser,
    conn: Database,
    config: Config,
    rate: FormText = "",
    rate_domain: FormText = "",
    warmup: FormText = "",
) -> Response:
    """Sets the rates for all workers; empty fields set no limit."""
    texts = {"rate": storable(rate), "rate_domain": storable(rate_domain), "warmup": storable(warmup)}
    try:
        actions.set_send_rates(conn, user.actor, **texts)
    except RefusedError as error:
        return _rate(user, conn, config, status=409, problem=error.detail, filled=texts)
    return redirect("/system/rate", notice="the rate is set; workers follow within seconds")


@router.post("/system/rate/unset")
def unset_rate(user: AdminUser, conn: Database) -> Response:
    """Lets the workers' settings hold again."""
    actions.unset_send_rates(conn, user.actor)
    return redirect("/system/rate", notice="the workers' own settings hold again")


def _rate(
    user: CurrentUser,
    conn: Connection,
    config: Settings,
    *,
    status: int = 200,
    notice: str = "",
    problem: str = "",
    filled: dict[str, str] | None = None,
) -> HTMLResponse:
    now = sending.read(conn, config.send_rates)
    environment = {"rate": config.send_rate, "rate_domain": config.send_rate_domain, "warmup": config.send_warmup}
    held = environment
    if now.settings is not None:
        held = {
            "rate": now.settings.rate,
            "rate_domain": now.settings.rate_domain,
            "warmup": now.settings.warmup,
        }
    return page(
        "send_rate",
        status=status,
        user=user,
        sending=now,
        notice=notice,
        problem=problem,
        environment=environment,
        filled=filled or {name: text or "" for name, text in held.items()},
    )
