"""The verbs of the method, and who carries them out.

step        what a step is: a description whose id is known before it is made
evaluate, judge, prefer, trainings   the steps; engine and train do the work
lab         the verbs; local does them here, planned counts them, workers do many side by side
rescore     scores recorded answers again
"""
