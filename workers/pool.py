"""A Celery pool of one, whose tasks may wait for other tasks."""

from __future__ import annotations

from celery.concurrency.solo import TaskPool


class Pool(TaskPool):  # type: ignore[misc]  # Celery ships few types
    """Celery's solo pool, without the rule that a task must not wait for another.

    The rule keeps a pool from filling up with tasks that wait for each other. Searches wait for
    probes, and these have a lane of their own. Celery's own way around it switches a variable of
    the whole process, which two searches in two threads of one process switch under each other.
    """

    task_join_will_block = False
