"""Chaos: whole campaigns while faults are injected at random; afterwards mails, ledger, logs and audits are verified.

    python -m tests.chaos --seed 7 --faults 100 --runner confluent

docs/explanation/chaos.md says what it does and how to read what it prints.
"""
