"""From a config to a finished run: pipeline, step, loop, evaluation, files.
Methods and networks are found by name in other folders.
"""
