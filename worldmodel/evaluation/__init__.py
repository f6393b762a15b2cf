"""Forecasts measured against what came about."""
