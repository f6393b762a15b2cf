"""A world model that predicts in the space of representations, not of scenes: a joint-embedding predictive one."""
