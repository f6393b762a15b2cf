"""Gymnasium environments, the closed loop, episodes and their replay."""
