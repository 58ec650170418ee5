"""What evaluations leave behind: ids, records, the results folder, and the DuckDB database."""

from cowest_bench.store.files import replaced
from cowest_bench.store.records import NOT_ASKED, Run, SampleScore, arrow_schema, content_hash
from cowest_bench.store.results import Results

__all__ = [
    "NOT_ASKED",
    "Results",
    "Run",
    "SampleScore",
    "arrow_schema",
    "content_hash",
    "replaced",
]
