"""What people and machines read: tables, Markdown, CSV, JSON, JUnit XML.

    tables       Report: one way to the terminal, Markdown, CSV and JSON
    results      stored test runs: scores, and what each collaboration gains
    comparison   ``cowest compare`` and ``cowest check``
    sweep        a sweep's matrix of gains and its front of score and cost
    plan         what a plan will take

The others make a Report of the objects of ``analysis`` and compute nothing of their own.
"""
