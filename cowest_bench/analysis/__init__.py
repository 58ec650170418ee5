"""Statistics on arrays: nothing here knows files, models or systems.

    stats        intervals, tests and verdicts
    resampling   tests, intervals and ranks by resampling clusters
    planning     what a comparison can detect, and bounds for looking at it while it runs
    contrasts    Items -> Pairs -> Contrast -> Gain: systems on the same samples
    feedback     what drafts changed, and the preference pairs that follow

Importing the package loads none of them, so the constants below cost nothing.
"""

MARGIN = 0.02  # a loss below it does not matter, unless another margin is given
ALPHA = 0.05  # intervals hold with 1 - ALPHA, unless another level is given
POOLED = "pooled"  # stands for all domains in tables and JSON
