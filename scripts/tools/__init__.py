"""What maintainers run: `python -m drivecast.scripts.tools.NAME`."""
