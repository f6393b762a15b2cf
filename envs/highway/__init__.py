"""highway-env itself, adapted: controls in SI units, its full state, its roads as ours."""
