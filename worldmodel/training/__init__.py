"""Training the world model: objective, optimisation, the loop and its diagnostics."""
