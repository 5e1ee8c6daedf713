"""Define the errors that a person can fix; their messages say what is wrong, where, and what to do."""


class LabError(Exception):
    """An error shown to people as its message alone, without a traceback."""


class NotMaterialized(LabError):
    """Raised by a step whose input an earlier Dagster asset has not produced yet."""
