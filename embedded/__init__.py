"""Real servers on a machine without Docker, kept under one folder: Kafka, PostgreSQL and a mail sink.

`stack.Stack` runs the servers, `commands.Commands` runs `bidden` commands on them, and `supervisor.Supervisor` starts
both again when they end. Nothing in here knows members, batches or mails; only `provision` knows the schema.
"""
