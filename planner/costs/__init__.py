"""The driving costs and their one weighted sum, over a trajectory."""
