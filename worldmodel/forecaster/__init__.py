"""The network that forecasts the other road users, its latent, and its rollouts."""
