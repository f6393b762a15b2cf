"""What goes wrong by the user's input, told in one line."""


class InputError(ValueError):
    """Input that cannot be used. The message names what was expected, what came and what to do."""
