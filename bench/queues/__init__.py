"""Task queues that do the same job: a task for each mail, our composer, a kept connection, one row of result a mail."""
