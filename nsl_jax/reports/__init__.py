"""Tables and figures, made from the results of runs."""
