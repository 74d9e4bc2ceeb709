"""The consumer group: from messages on the topic to mails, and to their outcomes in the ledger.

A pipeline that knows no stream library, and runners that feed it the records of each poll. Never imports `producers`.
"""
