"""highway-env's traffic as tensors: thousands of episodes at once, equal to highway-env's own (docs/simulator.md)."""
