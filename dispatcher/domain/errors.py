"""Every error we raise, in one tree.

DispatcherError
├── UsageError                what the user typed cannot be done as typed (exit code 2)
│   ├── CampaignFileError     a campaign file that does not say what it must
│   └── SourceError           a file of destinations that cannot be read
├── NotFound                  no such campaign, account or list entry
├── NotAllowed                it exists, but its state forbids this
├── ServerError               a server we need is away, too old or wrongly set
│   └── SchemaMismatch        the database has a schema that this version cannot use
├── Refused                   the database refused an impossible move: a bug of ours, and nothing was written
└── PayloadError              a provider's body that cannot be read

Trouble on the telephone line is no exception: it is an `Outcome` and goes through the one door (settling).
A message says what happened, to what, and what to do; it holds no phone number, secret or message text.
"""


class DispatcherError(Exception):
    """Base of all our errors; its text is shown to users as it is."""


class UsageError(DispatcherError):
    """What the user typed cannot be done as typed."""


class CampaignFileError(UsageError):
    """A campaign file that does not say what it must."""


class SourceError(UsageError):
    """A file of destinations that cannot be read."""


class NotFound(DispatcherError):
    """No such campaign, account or list entry."""


class NotAllowed(DispatcherError):
    """The thing exists, but its state forbids what was asked."""


class ServerError(DispatcherError):
    """A server we need is away, too old or wrongly set."""


class SchemaMismatch(ServerError):
    """The database has a schema that this version cannot use."""


class Refused(DispatcherError):
    """The database refused an impossible move: a bug of ours, and nothing was written."""


class PayloadError(DispatcherError):
    """A provider's body that cannot be read."""
