"""From a trigger to messages on the topic: planning, dispatching, replaying.

Never imports `streams`: the two meet at the topic and in the ledger.
"""
