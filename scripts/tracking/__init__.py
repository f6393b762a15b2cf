"""What a run says and stores: console, journal, MLflow, and what it came from."""
