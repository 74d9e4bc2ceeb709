"""Chaos: whole campaigns while everything that can fail does, on purpose and at random; then the books are checked.

    python -m tests.chaos --seed 7 --blows 100 --runner confluent

docs/explanation/chaos.md says what it does and how to read what it prints.
"""
