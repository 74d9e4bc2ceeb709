"""The directory, brought up to date by a file. For admins; the same import as the command's."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from typing import Annotated, Final

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import HTMLResponse
from starlette.datastructures import UploadFile

from config.settings import Settings
from db.audit_log import AuditEntry, audited
from db.connect import connect
from db.directory import import_lines
from schemas.directory_file import parse_lines
from schemas.errors import BiddenError, RefusedError, UnreachableError, printable
from web.auth.current_user import Admin, Database, Viewer
from web.body_limits import Limit
from web.dependencies import Config
from web.pages.rendering import page, plural

router = APIRouter(include_in_schema=False)

#: Of a request with a file. A directory of 100,000 members takes a third of it.
LARGEST: Final = 100 * 1024 * 1024
UPLOAD: Final = Limit(LARGEST, 600.0)
PATH: Final = "/directory"
#: What a file becomes in memory is several times as large: one at a time.
_importing: Final = threading.Lock()


async def upload(request: Request) -> AsyncIterator[None]:
    """Refuses what is too large before it is read, and what does not say how large it is; closes what was read.

    Whoever is refused later has had her file read, too: `signed_in` reads a form for its token.
    """
    length = request.headers.get("content-length", "")
    if not (length.isascii() and length.isdigit()):
        raise HTTPException(411, "The browser did not say how large the file is")
    if len(length) > 18 or int(length) > LARGEST:
        raise HTTPException(413, f"The file is larger than {LARGEST // 2**20} MB: use `bidden import`")
    try:
        yield
    finally:
        await request.close()


async def uploaded(request: Request, _: Admin) -> UploadFile | None:
    """The file of the form, on disk if it is large; None if none was chosen.

    Not a parameter of the route: that would be read before it is known who sends it. A form is read only once.
    """
    file = (await request.form()).get("file")
    return file if isinstance(file, UploadFile) and file.filename else None


@router.get(PATH)
def show_directory(viewer: Admin) -> HTMLResponse:
    """The form."""
    return _page(viewer)


@router.post(PATH, dependencies=[Depends(upload)])
def import_directory(
    viewer: Admin, file: Annotated[UploadFile | None, Depends(uploaded)], conn: Database, config: Config
) -> HTMLResponse:
    """Imports all of the file or, if a line is wrong, nothing."""
    if file is None:
        return _page(viewer, problem="Choose a file first", status=422)
    name = printable((file.filename or "")[:100])
    try:
        with audited(conn, AuditEntry(viewer.actor, "import", detail=name)) as deed:
            counts = _import(config, file)
            deed.note(", ".join(plural(count, kind) for kind, count in counts.items() if count) or "no lines")
    except BiddenError as error:
        status = 503 if isinstance(error, UnreachableError) else 409 if isinstance(error, RefusedError) else 422
        return _page(viewer, name=name, error=error, status=status)
    return _page(viewer, name=name, counts=counts)


def _import(settings: Settings, file: UploadFile) -> dict[str, int]:
    if not _importing.acquire(blocking=False):
        raise RefusedError("another file is being imported here: try again when it is done")
    try:
        # In one transaction, and so not by the request's connection.
        with connect(settings.require_database(), application="bidden-import") as conn:
            return import_lines(conn, parse_lines(file.file))
    finally:
        _importing.release()


def _page(
    viewer: Viewer,
    *,
    name: str = "",
    counts: dict[str, int] | None = None,
    error: BiddenError | None = None,
    problem: str = "",
    status: int = 200,
) -> HTMLResponse:
    return page(
        "directory",
        status=status,
        viewer=viewer,
        name=name,
        counts=counts,
        error=error,
        problem=problem,
        largest=LARGEST // 2**20,
    )
