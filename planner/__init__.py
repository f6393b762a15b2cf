"""The cost energy, imagined rollouts through the world model, the policy and its training."""
