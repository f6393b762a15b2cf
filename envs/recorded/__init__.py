"""Recorded traffic as a closed loop."""
