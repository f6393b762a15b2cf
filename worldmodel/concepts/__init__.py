"""Concepts: energies over entities that are taught by a few demonstrations."""
