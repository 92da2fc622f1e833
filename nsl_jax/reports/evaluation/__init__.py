"""The report of an evaluation: scores, pictures and one page of HTML."""
