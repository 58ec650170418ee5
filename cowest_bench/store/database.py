"""The DuckDB database ``results/scores.duckdb``: made from the runs' files, replaced as a whole.

It holds every finished run in the tables ``schema.RESULTS`` and the views ``schema.VIEWS``. Readers are
not disturbed while it is replaced, and it can be deleted at any time.
"""

from __future__ import annotations

import duckdb

from cowest_bench.errors import ConfigError
from cowest_bench.store.cards import all_cards
from cowest_bench.store.export import Export, by_data, finished
from cowest_bench.store.feedback_rows import all_feedback
from cowest_bench.store.results import Results
from cowest_bench.store.schema import RESULTS, VIEWS
from cowest_bench.store.suites import places
from cowest_bench.store.tables import new_database


def rebuild(results: Results) -> list[str]:
    """Write the database anew, and return a sentence for each run that was left out.

    Raises:
        ConfigError: If it cannot be written; the database from before, and all runs, are as they were.
    """
    folders = {"local": results}
    try:
        with new_database(results.database, RESULTS, VIEWS) as db:
            export = Export(db, folders)
            stored = finished(folders, export.warn)
            place = places(each.run for each in stored)
            measured = [
                each.stored
                for members in by_data(stored)
                for each in export.add(members, place[members[0].run.data])
            ]
            for given in all_feedback(measured, all_cards([results])):
                export.add_feedback(given)
            export.add_meta("")
            return export.notes
    except (OSError, duckdb.Error) as error:
        raise ConfigError(
            f"The database {results.database} cannot be written ({str(error).splitlines()[0]}); the "
            "runs are safe. Make room, then type: cowest results"
        ) from error


def connect(results: Results) -> duckdb.DuckDBPyConnection:
    """Open the database for reading.

    Raises:
        ConfigError: If there is none.
    """
    if not results.database.is_file():
        raise ConfigError(
            f"There are no results in {results.root}; make some with cowest demo or cowest run."
        )
    return duckdb.connect(str(results.database), read_only=True)
