"""Pages: templates filled, with what each of them needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

FOLDER: Final = Path(__file__).parent
_TEMPLATES: Final = Environment(
    loader=FileSystemLoader(FOLDER / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page. Whatever stands in `values` is escaped."""
    return HTMLResponse(_TEMPLATES.get_template(f"{template}.html.j2").render(values), status_code=status)


def message(title: str, text: str, *, status: int) -> HTMLResponse:
    """A page with a sentence on it."""
    return page("message", status=status, title=title, text=text)
