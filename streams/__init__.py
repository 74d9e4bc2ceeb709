"""From messages on the topic to mails, and to what the ledger says of them.

Steps that know no stream library, and runners that feed them takes of messages. Never imports `producers`.
"""
