"""The command line: a file a command, each with `main(argv)`. What a command
does is elsewhere.
"""
