"""Episodes to look at: one HTML page, or a video."""
