"""Descriptions with HTML in them: what is shown in both parts of a mail, and that nothing else is."""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mail.render import render as render_mail
from mail.rich_text import is_html, render
from schemas import limits
from schemas.vocabulary import Role
from tests.unit.test_mail_compose import composed, event, part, recipient
from web.pages.rendering import description

HEBREW = "\N{HEBREW LETTER ALEF}\N{HEBREW LETTER DALET}\N{HEBREW LETTER HE}"
ELEMENTS = {"p", "h2", "ul", "ol", "li", "blockquote", "strong", "em", "code", "a", "br"}


class Strict(HTMLParser):
    """Whether elements are allowed, balanced, and without attributes but ours."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ELEMENTS
        assert {name for name, _ in attrs} <= {"href", "dir"}
        for name, value in attrs:
            assert name != "href" or re.match("https?://|mailto:", value or "", re.IGNORECASE)
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize(
    ("source", "html", "text"),
    [
        (
            '<p>Join <strong>us</strong>!</p><p>Read <a href="https://example.org/x">this</a>.<br>Bye</p>',
            (
                '<p dir="auto">Join <strong>us</strong>!</p>\n'
                '<p dir="auto">Read <a href="https://example.org/x">this</a>.<br>\nBye</p>'
            ),
            "Join us!\n\nRead this (https://example.org/x).\nBye",
        ),
        (
            "<ul><li>One<li>Two<ol><li>in</li></ol></ul><ol><li>a</li><li>b</ol>after",
            (
                '<ul>\n<li dir="auto">One</li>\n<li dir="auto">Two\n<ol>\n<li dir="auto">in</li></ol></li></ul>\n'
                '<ol>\n<li dir="auto">a</li>\n<li dir="auto">b</li></ol>\n<p dir="auto">after</p>'
            ),
            "- One\n- Two\n  1. in\n\n1. a\n2. b\n\nafter",
        ),
        (
            "Hello <b>all</b>,\nline two\n\nnext <i>one</i>",
            '<p dir="auto">Hello <strong>all</strong>,<br>\nline two</p>\n<p dir="auto">next <em>one</em></p>',
            "Hello all,\nline two\n\nnext one",
        ),
        (
            "<h1>When</h1><blockquote>6<br>sharp</blockquote><table><tr><td>a</td><td>b</td></table>",
            (
                '<h2 dir="auto">When</h2>\n<blockquote>\n<p dir="auto">6<br>\nsharp</p></blockquote>\n'
                '<p dir="auto">a b</p>'
            ),
            "When\n\n> 6\n> sharp\n\na b",
        ),
        (
            (
                "<p onclick=x>a <a href='javascript:x'>b</a> <a href='java&#115;cript:x'>c</a><script>alert(1)</script>"
                "<style>p</style><img src=x onerror=y><!-- no --> &lt;i&gt; &amp;lt; <a href='//x'>d</a></p>"
            ),
            '<p dir="auto">a b c &lt;i&gt; &amp;lt; d</p>',
            "a b c <i> &lt; d",
        ),
        (
            "<p>Mail <a href=mailto:a@b.example>a@b.example</a>, <a href=https://b.example/?x=1&amp;y=2>b</a></p>",
            (
                '<p dir="auto">Mail <a href="mailto:a@b.example">a@b.example</a>,'
                ' <a href="https://b.example/?x=1&amp;y=2">b</a></p>'
            ),
            "Mail a@b.example, b (https://b.example/?x=1&y=2)",
        ),
        ("<p></p><b> </b><ul><li></li></ul><p>&#" + "1" * 5000 + ";</p>", '<p dir="auto">�</p>', "�"),
    ],
)
def test_what_is_rendered(source: str, html: str, text: str) -> None:
    """Paragraphs, lists, emphasis and links in both forms; scripts, styles, pictures and other links in none."""
    assert is_html(source)
    found = render(source, styled=False)
    assert (found.html, found.text) == (html, text)
    assert description(source) == html


@pytest.mark.parametrize(
    "text", ["I <3 Python", "a < b > c", "<script>x</script>", "List<String> <ada@example.org>", ""]
)
def test_plain_text_stays_plain(text: str) -> None:
    """A description without a tag of the subset is shown character by character."""
    assert not is_html(text)
    assert text in render_mail(event(description=text), Role.STUDENT, name="A", rsvp_url="r", unsubscribe_url="u").text


WORDS = "<p> </p> <b> </b> <a </a> <ul> <ol> <li> </li> </ul> <br> <script> </script> <!-- --> > < x y &lt; &#0; <td>"
PIECES = ("<a href='https://a.b'>", "href='", '"', "'", "\n", "<blockquote>", "</blockquote>", "\x00", "<i/onload=x>")
TAGS = st.sampled_from((*WORDS.split(), *PIECES))


@settings(max_examples=200)
@given(st.lists(TAGS | st.text(st.characters(), max_size=5), max_size=40).map("".join))
def test_whatever_a_description_holds(text: str) -> None:
    """Both forms are without controls, and the HTML is well-formed, of the fixed set of elements."""
    found = render(text, styled=False)
    parser = Strict()
    parser.feed(found.html)
    parser.close()
    assert parser.open == []
    for form in (found.text, found.html):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", form)


@pytest.mark.parametrize(
    "unit",
    ["<p>x", "<li>y", "<b>", "<!--", '<a href="', "<script>", "<blockquote>x", "<i><b>x</i>", "&#1", "<ul><li>x"],
)
def test_a_description_at_its_limit(unit: str) -> None:
    """FM-41: rendering is linear in the length: a moment at the limit, whatever tags it is made of. Prints how long."""
    text = ("<p>" + unit * limits.DESCRIPTION)[: limits.DESCRIPTION]
    took = []
    for _ in range(3):
        began = time.process_time()
        render(text)
        took.append(time.process_time() - began)
    print(f"{unit!r}: {min(took) * 1000:.1f} ms")
    assert min(took) < 0.5, "a hundred times that of ordinary text, on a busy machine"


def test_the_mail_has_both_forms() -> None:
    """The subset is in the mail's HTML, and its text beside the links in the plain part; no tag is shown as text."""
    mail = composed(event(description='<p>Bring a <b>laptop</b>, see <a href="https://example.org/x">how</a></p>'))
    assert "<strong>laptop</strong>" in part(mail, "html")
    assert "Bring a laptop, see how (https://example.org/x)\n" in part(mail, "plain")
    assert "&lt;" not in part(mail, "html")


def test_text_from_right_to_left() -> None:
    """Names are islands in both parts, and paragraphs choose their direction; a mail without any has no such mark."""
    details = event(name=f"{HEBREW}: Python 3!", chapter_names=(f"{HEBREW} 1",), host_name=HEBREW, description=HEBREW)
    mail = composed(details, recipient(HEBREW))
    html, text = part(mail, "html"), part(mail, "plain")
    assert f'<h1 dir="auto" style="margin:0 0 20px;font-size:22px;line-height:1.3;color:#1f2430;">{HEBREW}: ' in html
    assert f"<bdi>{HEBREW} 1</bdi> would like" in html
    assert re.search(f'<p dir="auto"[^>]*>\n{HEBREW}\n</p>', html)
    assert f"Hello {HEBREW}," in text, "the comma is where it belongs by itself"
    assert f"What:  \u2068{HEBREW}: Python 3!\u2069" in text
    assert f"Where: \u2068{HEBREW}\u2069" in text
    assert "\u2068" not in part(composed(), "plain")
