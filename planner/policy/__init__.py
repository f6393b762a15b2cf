"""The policy: its network, its trainings, and the driver that it makes."""
