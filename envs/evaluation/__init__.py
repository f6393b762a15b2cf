"""The closed loop, what is measured in it, statistics, suites and results."""
