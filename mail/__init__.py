"""Mail: from an event and a member to a mail that a server has accepted.

`render` turns an event into words, `compose` makes one message per member out of them without rendering again,
and a `Sender` hands messages over and reports how far each hand-over got. Nothing in here knows the topic, the
ledger or the retry policy.
"""
