"""Traffic that the world model imagines as a closed loop."""
