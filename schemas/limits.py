"""How much a text, a line, a file and a message may hold: limits at the door, so that nothing stops those behind it.

A person, a line of a directory or a message that exceeds one is refused by name. Records that an earlier version stored
may be longer: a mail cuts them (`mail.render`, `mail.compose`), because the batch of one event must not stop another's.
"""

from __future__ import annotations

from typing import Final

#: Characters of a name: of a member, a chapter, an event, a host. Far longer than any, short enough for a header.
NAME: Final = 3_000
#: Characters of an event's description; a mail holds it twice, as text and as HTML.
DESCRIPTION: Final = 32_768
#: Characters of a host's address.
HOST_ADDRESS: Final = 3_000
#: Octets of an e-mail address: an SMTP path is at most 256, angle brackets included (RFC 5321, 4.5.3.1.3).
EMAIL: Final = 254
#: Characters of an event's reference.
EVENT_REF: Final = 200
#: Characters of the pattern of the links where members answer: with a token it still fits in a line of a mail.
RSVP_URL: Final = 600
#: Chapters of one event.
CHAPTERS: Final = 1_000

#: Bytes of a line of the directory file: far above any record, so that a text that is too long is named by its field.
LINE: Final = 8_000_000
#: Bytes of a whole directory file: an import reads it into memory before it writes.
FILE: Final = 2_000_000_000
#: Bytes of a message on the invitations topic; ours have about 120.
MESSAGE: Final = 10_000
