"""Curves, charts, tables and the report."""
