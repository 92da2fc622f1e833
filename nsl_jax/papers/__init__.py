"""Results that the papers report, one per row of rows.csv."""
