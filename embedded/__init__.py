"""Real servers on a machine without Docker: Kafka, PostgreSQL and a mail sink, kept under one folder.

`stack.Stack` is the way in. What is in here starts, watches and stops servers; it knows nothing of members,
batches or mails, and no other package of ours but `schemas`.
"""
