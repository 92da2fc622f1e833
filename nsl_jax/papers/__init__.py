"""What the papers report: a row for each of their results, in rows.csv."""
