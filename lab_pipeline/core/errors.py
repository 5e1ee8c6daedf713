"""Define the errors that a person can fix: the message says what is wrong, where, and what to do."""


class LabError(Exception):
    """An error shown to people as its message alone, without a traceback."""


class NotMaterialized(LabError):
    """Something is needed that an earlier asset has not produced yet."""
