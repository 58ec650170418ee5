"""What people and machines read: tables, Markdown, CSV, JSON, JUnit XML.

    tables       text, Markdown and CSV tables, and how single values are written
    results      stored test runs: scores, and what each collaboration gains
    comparison   ``cowest compare`` and ``cowest check``
    sweep        a sweep's matrix of gains and its front of score and cost
    plan         what a plan will take

They render the objects of ``analysis`` and compute nothing of their own.
"""
