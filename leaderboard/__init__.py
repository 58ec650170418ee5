"""The leaderboard: a Streamlit app that reads published snapshots and nothing else.

streamlit run leaderboard/app.py

app.py      navigation        views/    one question each: a query, a chart, a sentence
data.py     the snapshot      query.py  a visitor's SQL, in a process of its own
charts.py   pure functions from tables to charts
text.py     text of others    ui.py     what pages share
"""
