"""The file of the mail sink: mails are read back byte for byte, and a crash leaves complete mails."""

from __future__ import annotations

import mailbox as standard_mailbox
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedded.mail_store import FILE, MailStore, StoredMail, count_mails, delivery_keys, read_mails
from schemas.errors import InputError

MAIL = b"X-Bidden-Delivery: 1/invite/2/Student\r\nSubject: Hello\r\n\r\nDear you,\r\n.\r\n"


def store_mails(folder: Path, *mails: bytes) -> None:
    """Stores mails as the sink does."""
    store = MailStore(folder)
    for mail in mails:
        store.append("sender@example.org", ["one@example.org", "two@example.org"], mail)
    store.close()


def test_a_mail_is_read_back(tmp_path: Path) -> None:
    """Sender, recipients, time and every byte of the mail are read back."""
    before = datetime.now(UTC)
    store_mails(tmp_path, MAIL)
    [mail] = read_mails(tmp_path)
    assert (mail.sender, mail.recipients) == ("sender@example.org", ("one@example.org", "two@example.org"))
    assert mail.data == MAIL
    assert before <= mail.received_at <= datetime.now(UTC)


lines = st.one_of(
    st.sampled_from([b"", b"From me", b">From me", b">>From you", b"X-Envelope-Bytes: 3", b"X-Received-At: no", b"."]),
    st.binary(max_size=40).map(lambda b: b.replace(b"\r", b"").replace(b"\n", b"")),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(lines, max_size=8), max_size=5))
def test_any_lines_survive(tmp_path_factory: pytest.TempPathFactory, mails: list[list[bytes]]) -> None:
    """No content of a mail is read as the beginning of the next one."""
    folder = tmp_path_factory.mktemp("mails")
    texts = [b"".join(line + b"\r\n" for line in mail) for mail in mails]
    store_mails(folder, *texts)
    assert [mail.data for mail in read_mails(folder)] == texts
    assert count_mails(folder) == len(texts)


def test_any_mail_program_can_read_the_file(tmp_path: Path) -> None:
    """Python's own mbox reader sees the same mails."""
    store_mails(tmp_path, MAIL, MAIL + b"From now on\r\n")
    box = standard_mailbox.mbox(tmp_path / FILE, create=False)
    assert [message["Subject"] for message in box] == ["Hello", "Hello"]
    assert [message["X-Envelope-From"] for message in box] == ["sender@example.org"] * 2
    box.close()


def test_addresses_beyond_ascii_and_the_null_sender(tmp_path: Path) -> None:
    """An internationalised recipient and an empty sender are stored unchanged."""
    store = MailStore(tmp_path)
    store.append("", ["grüße@münchen.example"], b"\r\n")
    store.close()
    [mail] = read_mails(tmp_path)
    assert (mail.sender, mail.recipients) == ("", ("grüße@münchen.example",))


def test_every_cut_leaves_complete_mails(tmp_path: Path) -> None:
    """Wherever a kill cuts the file, the mails before the cut are read, and the next writer continues after them."""
    store_mails(tmp_path, MAIL)
    first = (tmp_path / FILE).stat().st_size
    store_mails(tmp_path, MAIL)
    complete = (tmp_path / FILE).read_bytes()
    for cut in range(first, len(complete)):
        (tmp_path / FILE).write_bytes(complete[:cut])
        assert [mail.data for mail in read_mails(tmp_path)] == [MAIL]
        assert delivery_keys(tmp_path) == ["1/invite/2/Student"]
        store_mails(tmp_path, b"next\r\n")
        assert [mail.data for mail in read_mails(tmp_path)] == [MAIL, b"next\r\n"]


def test_cut_in_the_first_mail(tmp_path: Path) -> None:
    """An incomplete first mail does not count, for the reader and for the next writer."""
    store_mails(tmp_path, MAIL)
    complete = (tmp_path / FILE).read_bytes()
    for cut in range(len(complete)):
        (tmp_path / FILE).write_bytes(complete[:cut])
        assert count_mails(tmp_path) == 0
        store_mails(tmp_path, b"next\r\n")
        assert [mail.data for mail in read_mails(tmp_path)] == [b"next\r\n"]


def test_no_mails(tmp_path: Path) -> None:
    """No folder, no file and an empty file hold no mails."""
    assert list(read_mails(tmp_path / "none")) == []
    store_mails(tmp_path)
    assert count_mails(tmp_path) == 0
    assert delivery_keys(tmp_path) == []


def test_delivery_keys_are_headers_only(tmp_path: Path) -> None:
    """A key is read from the header, in any case, and never from the body."""
    store_mails(
        tmp_path,
        b"x-bidden-delivery:  7/invite/8/Coach \r\n\r\n",
        b"Subject: none\r\n\r\nX-Bidden-Delivery: 9/invite/9/Coach\r\n",
    )
    assert delivery_keys(tmp_path) == ["7/invite/8/Coach", ""]


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    """An edit in the middle of the file is an error, not the end of the mails."""
    store_mails(tmp_path, MAIL, MAIL)
    text = (tmp_path / FILE).read_text()
    (tmp_path / FILE).write_text(text.replace("X-Envelope-Bytes: ", "X-Envelope-Bytes: x", 1))
    with pytest.raises(InputError, match=r"damaged before byte \d+"):
        list(read_mails(tmp_path))


def test_a_full_disk_stores_nothing_of_the_mail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short write is undone and raised, so that the sink does not reply 250."""
    store_mails(tmp_path, MAIL)
    store = MailStore(tmp_path)
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:20]))
    with pytest.raises(OSError, match="No space left"):
        store.append("a@example.org", ["b@example.org"], MAIL)
    monkeypatch.undo()
    store.append("c@example.org", ["d@example.org"], MAIL)
    store.close()
    assert [mail.sender for mail in read_mails(tmp_path)] == ["sender@example.org", "c@example.org"]


def test_only_the_owner_reads_mails(tmp_path: Path) -> None:
    """Other users of the machine must not read names and personal links."""
    store_mails(tmp_path / "new", MAIL)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "new" / FILE).stat().st_mode & 0o777 == 0o600


def test_stored_mail_is_a_value() -> None:
    """Two readings of one mail compare equal."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    assert StoredMail("a", ("b",), at, b"c") == StoredMail("a", ("b",), at, b"c")
