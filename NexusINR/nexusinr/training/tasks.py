"""The tasks that there are, by the architecture that they train."""

from __future__ import annotations

from typing import Any

from nexusinr.training.iconet_task import ICONetTask
from nexusinr.training.nexus_task import NexusTask
from nexusinr.training.task import Task

TASKS: dict[str, type[Task[Any]]] = {task.architecture: task for task in (NexusTask, ICONetTask)}


def task_class(architecture: str) -> type[Task[Any]]:
    """The task of an architecture. Raises ValueError for one that there is none for."""
    if architecture not in TASKS:
        raise ValueError(f"architecture is {architecture!r}: choose {' or '.join(TASKS)}")
    return TASKS[architecture]
