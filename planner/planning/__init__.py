"""Planners: model-predictive control at decision time, by search and by gradient through the world model."""
