"""From a trigger to messages on the topic: plan, publish, dispatch, replay, redrive.

Never imports `streams`: the two meet at the topic and in the ledger.
"""
