"""Rollouts of the ego under control: their starts, and who answers it in them."""
