"""The leaderboard: a Streamlit app that reads published snapshots and nothing else.

    streamlit run leaderboard/app.py

    app.py         navigation                       views/      the pages: a query, a chart, a sentence
    data.py        the snapshot and its queries     query.py    a visitor's SQL, in its own process
    choices.py     the address, and every box       ui.py, sample.py    what pages share
    charts.py, training_charts.py                   tables.py   the columns of tables
    comparison.py  two sides, by cowest compare     answers.py  what is said in words
    cards.py       facts about models (models.toml) text.py     text of others, made safe

(A folder named pages/ would make Streamlit run a page without app.py in the server's first session.)
"""
