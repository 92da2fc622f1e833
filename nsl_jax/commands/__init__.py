"""The command line: one file per command, each with `main(argv)`. The work is
done in other folders.
"""
