"""The audit: who did what, when; append-only."""

from enum import StrEnum


class AuditActor(StrEnum):
    """Who did an act. Stored: a word never changes."""

    OPERATOR = "operator"
    """A person, by a command, or a service, through the API."""
    SYSTEM = "system"
    CALLED_PERSON = "person"
    """Who was called, by a reply or a key that asks for no more."""
    PROVIDER = "provider"
    """It refuses a number, and says that the person is not to be called."""
