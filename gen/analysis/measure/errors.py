"""What `measure` raises for input that it cannot take."""


class MeasurementError(ValueError):
    """Images, options or files that cannot be measured: the value, the rule, the fix."""

    exit_code = 1
