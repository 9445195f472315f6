"""What is wrong with a run, told before it starts: every check in one table."""
