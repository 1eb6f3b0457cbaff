"""The one error of a measurement."""


class MeasurementError(ValueError):
    """Images or arguments that cannot be measured; one line. `exit_code` is what a command ends with."""

    exit_code = 1
