"""Tasks: lm-eval's YAML format, the public data sets, and what a model's text says."""

from cowest_bench.tasks.loading import (
    StatedTask,
    list_tasks,
    load_task,
    load_tasks,
    read_task_file,
    tasks_folder,
)
from cowest_bench.tasks.task import (
    BYTES_PER_TOKEN,
    Message,
    Metadata,
    Split,
    Task,
    chat_as_json,
    describe_task,
    messages_of,
    validate_task,
)

__all__ = [
    "BYTES_PER_TOKEN",
    "Message",
    "Metadata",
    "Split",
    "StatedTask",
    "Task",
    "chat_as_json",
    "describe_task",
    "list_tasks",
    "load_task",
    "load_tasks",
    "messages_of",
    "read_task_file",
    "tasks_folder",
    "validate_task",
]
