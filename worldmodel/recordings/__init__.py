"""Recorded traffic: formats in, one schema on disk and in memory, and a store of training windows."""
