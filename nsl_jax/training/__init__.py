"""From a config to a finished run: pipeline, step, loop, evaluation, files.
Methods and networks come from elsewhere, by name.
"""
