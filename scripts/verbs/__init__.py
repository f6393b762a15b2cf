"""The verbs, a module each: a config dataclass and `run(config, run)`; and what trainings share."""
