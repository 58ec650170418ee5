"""The leaderboard's data: the snapshot that the app shows, and the committed reference results.

    entries.py, rows.py           rows of the snapshot's tables
    snapshot.py                   writes one: ``publish``
    reference.py, submission.py   results/submitted: what must hold, and adding to it

The app itself is ``leaderboard/``, beside this package. Tables that ``results/scores.duckdb`` has too are
written by ``store/database.py``.
"""
