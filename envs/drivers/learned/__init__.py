"""Drivers that Stable-Baselines3 trained."""
