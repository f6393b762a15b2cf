"""The drivecast command: one thin module per verb."""
