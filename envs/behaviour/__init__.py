"""How road users drive by rules: what they are about to do, and who they are, fitted to recordings or mixed."""
