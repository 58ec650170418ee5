"""The doors of other tools: a pairing as a model of lm-eval, and our tasks for ``inspect eval``.

lm_eval     CowestLM, the model "cowest" of lm-eval's own command
registry    what Inspect's entry point loads
"""
