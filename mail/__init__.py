"""Mail: from an event and a member to a mail that a server has accepted.

`render` renders an event's text, `compose` makes one message per member from it without rendering again, and a
`Sender` sends messages and reports how far each dialogue got. Nothing in here knows the topic, the ledger or the
retry policy.
"""
