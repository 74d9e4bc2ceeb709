"""The directory: its source, if it has one, and the import of a file, as `bidden import` does. For admins."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from typing import Annotated, Final

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import HTMLResponse
from starlette.datastructures import UploadFile

from config.settings import Settings
from db import source_status
from db.audit_log import AuditEntry, audited
from db.connect import Connection, connect
from db.directory import import_lines
from schemas.directory_file import parse_lines, read_lines
from schemas.errors import BiddenError, InputError, RefusedError, UnreachableError, printable
from web.auth.current_user import AdminUser, CurrentUser
from web.body_limits import Limit
from web.dependencies import Config, Database
from web.pages.rendering import page, plural

router = APIRouter(include_in_schema=False)

#: Bytes of a request with a file. A directory of 100,000 members needs a third of it.
MAX_BYTES: Final = 100 * 1024 * 1024
UPLOAD_LIMIT: Final = Limit(MAX_BYTES, 600.0)
PATH: Final = "/directory"
#: Lines set aside that the page names; `bidden sync --check` names up to a thousand.
LINES_SHOWN: Final = 100
#: A file needs several times its size in memory: one import at a time.
_import_lock: Final = threading.Lock()


async def check_upload(request: Request) -> AsyncIterator[None]:
    """Refuses a file that is too large, or of unknown size, before it is read; closes the form afterwards.

    Precedes `signed_in`, which reads the whole form for its token.
    """
    length = request.headers.get("content-length", "")
    if not (length.isascii() and length.isdigit()):
        raise HTTPException(411, "The browser did not say how large the file is")
    if len(length) > 18 or int(length) > MAX_BYTES:
        raise HTTPException(413, f"The file is larger than {MAX_BYTES // 2**20} MB: use `bidden import`")
    try:
        yield
    finally:
        await request.close()


async def uploaded_file(request: Request, _: AdminUser) -> UploadFile | None:
    """The form's file, on disk if it is large; None if none was chosen.

    Not a `File` parameter of the route: FastAPI would read it before it knows the user.
    """
    file = (await request.form()).get("file")
    return file if isinstance(file, UploadFile) and file.filename else None


@router.get(PATH)
def show_directory(user: AdminUser, conn: Database) -> HTMLResponse:
    """The newest snapshot of the source, what it set aside, and the form."""
    return _page(user, conn)


@router.post(PATH, dependencies=[Depends(check_upload)])
def import_directory(
    user: AdminUser, file: Annotated[UploadFile | None, Depends(uploaded_file)], conn: Database, config: Config
) -> HTMLResponse:
    """Imports the whole file or, if a line is invalid, nothing."""
    if file is None:
        return _page(user, conn, problem="Choose a file first", status=422)
    name = printable((file.filename or "")[:100])
    try:
        with audited(conn, AuditEntry(user.actor, "import", detail=name)) as entry:
            counts = _import(config, file)
            entry.note(", ".join(plural(count, kind) for kind, count in counts.items() if count) or "no lines")
    except BiddenError as error:
        status = 503 if isinstance(error, UnreachableError) else 409 if isinstance(error, RefusedError) else 422
        return _page(user, conn, name=name, error=error, status=status)
    return _page(user, conn, name=name, counts=counts)


def _import(settings: Settings, file: UploadFile) -> dict[str, int]:
    if not _import_lock.acquire(blocking=False):
        raise RefusedError("another file is being imported: try again when that is done")
    try:
        # The request's connection is in autocommit mode; an import is one transaction.
        with connect(settings.require_database(), application="bidden-import") as conn:
            return import_lines(conn, parse_lines(read_lines(file.file)), role_policy=settings.role_policy)
    finally:
        _import_lock.release()


def _page(
    user: CurrentUser,
    conn: Connection,
    *,
    name: str = "",
    counts: dict[str, int] | None = None,
    error: BiddenError | None = None,
    problem: str = "",
    status: int = 200,
) -> HTMLResponse:
    source = source_status.read(conn)
    return page(
        "directory",
        status=status,
        user=user,
        name=name,
        counts=counts,
        error=error,
        others=error.others if isinstance(error, InputError) else (),
        more=error.more if isinstance(error, InputError) else 0,
        problem=problem,
        max_megabytes=MAX_BYTES // 2**20,
        source=source,
        aside=source_status.set_aside(conn, LINES_SHOWN) if source is not None else [],
    )
