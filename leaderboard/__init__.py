"""The leaderboard: a Streamlit app that reads published snapshots and nothing else.

    streamlit run leaderboard/app.py

    app.py         navigation                       views/      the pages: a query, a chart, a sentence
    data.py        the snapshot and its queries     query.py    a visitor's SQL, in its own process
    charts.py, training_charts.py                   tables.py   what tables show
    comparison.py  two entries, by cowest compare   answers.py  what is said in words
    text.py        text of others, made safe        ui.py, sample.py    what pages share

(A folder named pages/ would make Streamlit run a page without app.py in the server's first session.)
"""
