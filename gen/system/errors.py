"""The errors that one line explains. Anything else that ends a command is a bug of ours."""


class GenError(Exception):
    """What a user can act on: the message names the value, the rule and the fix."""

    exit_code = 1


class InputError(GenError, ValueError):
    """A value against its rule."""
