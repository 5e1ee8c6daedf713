"""The one family of errors that a person can mend: the message says what is wrong, where, and what to do."""


class LabError(Exception):
    """Shown to people as its message alone, without a traceback."""


class NotMaterialized(LabError):
    """Something is asked for that an earlier asset has not made yet."""
