"""Traffic recordings in, a forecaster of the other road users out."""
