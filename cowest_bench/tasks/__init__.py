"""Tasks: lm-eval's YAML format, the public data sets, and what a model's text says."""

from cowest_bench.tasks.task import (
    Message,
    Metadata,
    Split,
    Task,
    TaskSample,
    as_json,
    describe_task,
    list_tasks,
    load_task,
    load_tasks,
    messages_of,
    read_task_file,
    tasks_folder,
    validate_task,
)

__all__ = [
    "Message",
    "Metadata",
    "Split",
    "Task",
    "TaskSample",
    "as_json",
    "describe_task",
    "list_tasks",
    "load_task",
    "load_tasks",
    "messages_of",
    "read_task_file",
    "tasks_folder",
    "validate_task",
]
