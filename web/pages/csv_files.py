"""Tables to download for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from fastapi.responses import StreamingResponse

from web.spreadsheet_cells import safe_cell

#: Without it Excel takes UTF-8 for the machine's old code page.
_BOM: Final = "\ufeff"


def download(name: str, columns: Sequence[str], parts: Iterable[Iterable[Mapping[str, Any]]]) -> StreamingResponse:
    """The file `name`, with these columns of the rows, sent part by part."""
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
    return StreamingResponse(_lines(columns, parts), media_type="text/csv; charset=utf-8", headers=headers)


def _lines(columns: Sequence[str], parts: Iterable[Iterable[Mapping[str, Any]]]) -> Iterator[str]:
    yield _BOM + ",".join(columns) + "\r\n"
    for rows in parts:
        buffer = io.StringIO()
        csv.writer(buffer).writerows([safe_cell(row[name]) for name in columns] for row in rows)
        yield buffer.getvalue()
