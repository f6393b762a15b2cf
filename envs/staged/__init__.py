"""Staged traffic: small scenes whose right answer is known, for planners to be tried on one by one."""
