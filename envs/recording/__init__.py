"""`drivecast record`: traffic of highway-env, one by one or in batches, into recordings."""
