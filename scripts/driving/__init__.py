"""Drivers and models by name, and episodes spread over processes."""
