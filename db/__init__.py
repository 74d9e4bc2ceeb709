"""PostgreSQL: tables, migrations, named statements, and the functions that run them.

Uniqueness, transitions and fences live here. Nothing in here knows Kafka, mail or the command line.
"""
