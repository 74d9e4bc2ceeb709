"""Descriptions with HTML in them, as a safe subset in HTML and as plain text (ADR 40). Pure, and linear in the length.

Nothing of the input's markup is passed on: tags are read one by one, and both results are written anew, from escaped
text, a fixed set of elements, and links that were checked. So whatever the input is, the results are well-formed.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from typing import Final

from mail.html_tokens import TAG, tokens, unescaped, without_comments
from mail.html_tokens import href as find_href
from mail.sanitize import one_line, without_surrogates

_BLANK_LINES: Final = re.compile(r"\n[ \t]*(?:\n[ \t]*)+")

_INLINE: Final = {"b": "strong", "strong": "strong", "i": "em", "em": "em", "a": "a", "code": "code"}
_BLOCKS: Final = {
    **dict.fromkeys(("p", "div", "section", "article", "header", "footer", "table", "tr", "pre", "address"), "p"),
    **dict.fromkeys(("h1", "h2", "h3", "h4", "h5", "h6"), "h2"),
    **{name: name for name in ("ul", "ol", "li", "blockquote")},
}
_INLINES: Final = frozenset(_INLINE.values())
_LISTS: Final = frozenset(("ul", "ol"))
_CONTAINERS: Final = frozenset(("ul", "ol", "li", "blockquote"))
_OTHER: Final = frozenset(("br", "hr", "img", "span", "u", "s", "small", "font", "td", "th", "center", "sub", "sup"))
#: A text that holds none of these tags is plain text: "<3" and "a < b" stay as they are.
_KNOWN: Final = frozenset((*_INLINE, *_BLOCKS, *_OTHER))
_WITHOUT_NEWLINES: Final = frozenset((*_BLOCKS, "br", "hr"))
_DEEPEST: Final = 12

_STYLES: Final = {
    "p": ' style="margin:0 0 16px;"',
    "h2": ' style="margin:0 0 8px;font-size:18px;line-height:1.3;"',
    "ul": ' style="margin:0 0 16px;padding-left:24px;"',
    "ol": ' style="margin:0 0 16px;padding-left:24px;"',
    "li": "",
    "blockquote": ' style="margin:0 0 16px;padding-left:12px;border-left:3px solid #dfe2e8;"',
}
#: Paragraphs and the like choose their direction by their text.
_DIRECTED: Final = frozenset(("p", "h2", "li"))


@dataclass(frozen=True, slots=True)
class RichText:
    """A description for both parts of a mail. `html` is a sequence of block elements."""

    text: str
    html: str


@dataclass(eq=False, slots=True)
class _Element:
    tag: str
    href: str = ""
    #: Of a list: how many items it has.
    items: int = 0
    #: Of an item: its number in the list.
    number: int = 0
    is_numbered: bool = False
    is_empty: bool = True


def is_html(text: str) -> bool:
    """Whether the text holds a tag that descriptions may have."""
    return any(match[2].lower() in _KNOWN for match in TAG.finditer(text))


def render(text: str, *, styled: bool = True) -> RichText:
    """The text of a description that `is_html`, for people, in both forms. `styled`: with styles, as for a mail."""
    text = without_comments(without_surrogates(text).replace("\r\n", "\n").replace("\r", "\n"))
    keeps_lines = not any(match[2].lower() in _WITHOUT_NEWLINES for match in TAG.finditer(text))
    writer = _Writer(styled)
    for tag, is_end, attributes, chunk in tokens(text):
        if tag:
            writer.tag(tag, attributes, is_end=is_end)
        elif keeps_lines:
            for position, paragraph in enumerate(_BLANK_LINES.split(chunk)):
                if position:
                    writer.tag("p", "", is_end=False)
                for number, line in enumerate(paragraph.split("\n")):
                    if number:
                        writer.line_break()
                    writer.write(line)
        else:
            writer.write(chunk)
    return writer.finished()


@dataclass(slots=True)
class _Writer:
    """Writes both forms. `_wanted` are the elements that are open in the input, `_open` those that are in the output.

    An element is opened in the output by its first text: what is empty leaves nothing.
    """

    _styled: bool
    _wanted: list[_Element] = field(default_factory=list)
    _open: list[_Element] = field(default_factory=list)
    _html: list[str] = field(default_factory=list)
    _text: list[str] = field(default_factory=list)
    #: Line breaks that the next text begins with; before a block's first text there are none.
    _breaks: int = 0
    _space: bool = False

    def tag(self, name: str, attributes: str, *, is_end: bool) -> None:
        if name in ("br", "hr"):
            self.line_break()
        elif name in ("td", "th"):
            self._space = True
        elif name in _INLINE:
            self._inline(_INLINE[name], attributes, is_end=is_end)
        elif name in _BLOCKS:
            self._block(_BLOCKS[name], is_end=is_end)

    def line_break(self) -> None:
        self._breaks = min(self._breaks + 1, 2)

    def write(self, chunk: str) -> None:
        """Appends text, of which white space is one space."""
        chunk = unescaped(chunk)
        words = " ".join(chunk.split())
        if not words.isprintable():
            words = one_line(words)
        self._space = self._space or chunk[:1].isspace()
        if not words:
            return
        has_begun = self._sync()
        if has_begun and self._breaks:
            self._html.append("<br>\n" * self._breaks)
            self._text.append("\n" * self._breaks + self._indent())
        elif has_begun and self._space:
            self._html.append(" ")
            self._text.append(" ")
        self._html.append(html.escape(words))
        self._text.append(words)
        for element in reversed(self._open):
            if not element.is_empty:
                break
            element.is_empty = False
        self._breaks, self._space = 0, chunk[-1:].isspace()

    def finished(self) -> RichText:
        self._wanted = []
        self._close(0)
        return RichText("".join(self._text).strip("\n"), "".join(self._html).strip())

    def _inline(self, tag: str, attributes: str, *, is_end: bool) -> None:
        if is_end or tag == "a":
            self._wanted = _until(self._wanted, tag, blocks=False)
        if not is_end and len(self._wanted) < _DEEPEST:
            href = find_href(attributes) if tag == "a" else ""
            if tag != "a" or href:
                self._wanted.append(_Element(tag, href))

    def _block(self, tag: str, *, is_end: bool) -> None:
        self._wanted = [each for each in self._wanted if each.tag in _CONTAINERS]
        self._breaks, self._space = 0, False
        if is_end:
            self._wanted = _until(self._wanted, tag, blocks=True)
            return
        if tag == "li":
            while self._wanted and self._wanted[-1].tag not in _LISTS:
                self._wanted.pop()
            if not self._wanted:
                self._wanted.append(_Element("ul"))
            parent = self._wanted[-1]
            parent.items += 1
            self._wanted.append(_Element("li", number=parent.items, is_numbered=parent.tag == "ol"))
        elif len(self._wanted) < _DEEPEST and not (tag == "p" and self._wanted and self._wanted[-1].tag == "li"):
            self._wanted.append(_Element(tag))

    def _sync(self) -> bool:
        """Closes and opens elements so that text may follow; whether its block has text already."""
        at = len(self._wanted)
        while at and self._wanted[at - 1].tag in _INLINES:
            at -= 1
        around = self._wanted[at - 1].tag if at else ""
        if around in _LISTS:
            self._wanted.insert(at, _Element("li", number=1))
        elif around in ("", "blockquote"):
            self._wanted.insert(at, _Element("p"))
        else:
            at -= 1
        same = 0
        for one, other in zip(self._open, self._wanted, strict=False):
            if one is not other:
                break
            same += 1
        self._close(same)
        has_begun = not self._wanted[at].is_empty
        if has_begun and self._space and not self._breaks and len(self._wanted) > same:
            # The space stands before the element.
            self._html.append(" ")
            self._text.append(" ")
            self._space = False
        for element in self._wanted[same:]:
            self._open_element(element)
        return has_begun

    def _open_element(self, element: _Element) -> None:
        tag = element.tag
        self._open.append(element)
        if tag == "a":
            style = ' style="color:#1f5fbf;"' if self._styled else ""
            self._html.append(f'<a href="{html.escape(element.href)}"{style}>')
        elif tag in _INLINES:
            self._html.append(f"<{tag}>")
        else:
            direction = ' dir="auto"' if tag in _DIRECTED else ""
            self._html.append(f"\n<{tag}{direction}{_STYLES[tag] if self._styled else ''}>")
        if tag in _DIRECTED:
            indent = self._indent()
            if tag == "li":
                indent = indent[:-2] + (f"{element.number}. " if element.is_numbered else "- ")
                is_inner = any(each.tag == "li" for each in self._open[:-1])
                self._text.append(("\n" if element.number == 1 and not is_inner else "") + "\n" + indent)
            else:
                self._text.append("\n\n" + indent)

    def _close(self, keep: int) -> None:
        while len(self._open) > keep:
            element = self._open.pop()
            self._html.append(f"</{element.tag}>")
            if element.tag == "a" and not self._shows(element.href):
                self._text.append(f" ({element.href.removeprefix('mailto:')})")

    def _shows(self, href: str) -> bool:
        """Whether the text of the link, which was written just now, is its address."""
        return self._text[-1].rstrip("/") in (href.rstrip("/"), href.removeprefix("mailto:"))

    def _indent(self) -> str:
        marks = {"blockquote": "> ", "li": "  "}
        return "".join(marks.get(each.tag, "") for each in self._open)


def _until(wanted: list[_Element], tag: str, *, blocks: bool) -> list[_Element]:
    """Without the last element of this tag and all in it."""
    for n in range(len(wanted) - 1, -1, -1):
        if wanted[n].tag == tag:
            return wanted[:n]
        if not blocks and wanted[n].tag not in _INLINES:
            break
    return wanted
