"""Errors that reach a user as one line."""


class UserError(Exception):
    """Something failed that the user can act on; the message is one line. Exit status 1."""


class ConfigError(UserError):
    """Wrong usage or configuration, found before anything starts. Exit status 2."""
