"""Errors that a user can mend: one line that names the file, key or document and the way out."""

from __future__ import annotations


class UserError(Exception):
    """Bad input from the user: printed as one line, exit code 2."""


class NotFound(UserError):
    """Nothing goes by the name that was given."""


class CheckError(Exception):
    """A check that failed (conservation, verify, an alarm): printed as one line, exit code 1."""
