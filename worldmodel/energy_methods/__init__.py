"""One energy E(past, future) of a vehicle's future among the others, trained in every way."""
