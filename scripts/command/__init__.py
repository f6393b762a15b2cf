"""The command: its verbs' table, its options, its OUTPUT, and a run from beginning to end."""
