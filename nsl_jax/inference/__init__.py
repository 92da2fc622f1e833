"""Using what a run has learned: prediction, evaluation, export, and a
classifier in the style of scikit-learn. Nothing here trains by a loop of its
own.
"""
