"""What a planner finds by searching in imagination, learned by a policy that then does without."""
