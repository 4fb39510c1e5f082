"""The errors of loradrop, named for the outcome; all are LoradropError."""

from loradrop.catalog.adapter import Reason

NO_CATALOG = (
    "Redis holds no catalog yet: no watcher has published on this Redis and pool. Start a watcher "
    "(`loradrop watch`), and compare its --redis-url and --pool with these."
)
"""The message of CatalogUnavailable where Redis is well and the catalog does not exist."""


class LoradropError(Exception):
    """Base of all errors. `message` is a sentence that says what happened and what to do."""

    code = "error"
    default_message = ""

    def __init__(self, message: str = "") -> None:
        self.message = message or self.default_message
        super().__init__(self.message)

    @property
    def reason(self) -> Reason:
        """The stable code and the sentence."""
        return Reason(self.code, self.message)


class CatalogUnavailable(LoradropError):
    """Redis is away, starting, or out of reach; nothing is lost, try again later."""

    code = "catalog_unavailable"


class CatalogDenied(LoradropError):
    """Redis refuses this user or a permission: an operator must act."""

    code = "catalog_denied"


class CatalogRefused(LoradropError):
    """Redis answered with an error that trying again will not mend: an operator must act."""

    code = "catalog_refused"


class RecordInvalid(LoradropError):
    """A record in Redis does not decode, edited by hand or of another schema: the watcher mends it."""

    code = "record_invalid"


class ResyncNeeded(LoradropError):
    """A gap, a regress or a new epoch: the reader must list the catalog again."""

    code = "resync_needed"


class LeaseHeld(LoradropError):
    """Another watcher publishes this pool. `owner` names it."""

    code = "lease_held"

    def __init__(self, owner: str) -> None:
        super().__init__(f"The watcher {owner} publishes this pool; standing by until it stops.")
        self.owner = owner


class LeaseLost(LoradropError):
    """Our fence or epoch is no longer the catalog's: publish nothing, lead again."""

    code = "lease_lost"


class NoWatcher(LoradropError):
    """No watcher is alive to answer a refresh."""

    code = "no_watcher"


class PrefixNotConfigured(LoradropError):
    """No directory was given to discover adapters in."""

    code = "prefix_not_configured"
    default_message = (
        "No prefix is configured, so there is nothing to discover. Start with --lora-dir-prefix PATH."
    )


class UnknownAdapter(LoradropError):
    """The catalog has no such name."""

    code = "unknown_adapter"


class UnknownRefresh(LoradropError):
    """No refresh has this id, or its result has expired."""

    code = "unknown_refresh"


class KeysInvalid(LoradropError):
    """The configured API keys are malformed. The message contains no part of them."""

    code = "api_keys_invalid"


class KeyNeeded(LoradropError):
    """A request carries no key, or an unknown one."""

    code = "invalid_api_key"
    default_message = (
        "Send `Authorization: Bearer KEY` with one of the keys in LORADROP_API_KEY, or in the file that "
        "LORADROP_API_KEY_FILE names, of this server."
    )


class AdminKeyNeeded(LoradropError):
    """A request that changes what is served, or operates the server, carries a key that may only read."""

    code = "admin_key_needed"
    default_message = (
        "This key has the scope read, and this request changes or operates the server. Send a key whose "
        "scope is admin; one that is configured without a scope is."
    )


class ForeignOrigin(LoradropError):
    """A page of another site sends a request that acts, and no key is asked for."""

    code = "foreign_origin"
    default_message = (
        "A web page of another site may not ask for this. Give the server a key with LORADROP_API_KEY, "
        "and send it."
    )


class HostNotAllowed(LoradropError):
    """A request came under a name this server does not have, and no key is asked for."""

    code = "host_not_allowed"

    def __init__(self, host: str) -> None:
        super().__init__(
            f"This server is not known as {host[:255]!r}, and it asks for no key. Use its address, allow the "
            "name with LORADROP_API_ALLOWED_HOST, or give it a key with LORADROP_API_KEY."
        )


class RequestTooLarge(LoradropError):
    """The body of a request is above the limit."""

    code = "request_too_large"

    def __init__(self, max_bytes: int, *, what: str = "The body has") -> None:
        super().__init__(
            f"{what} more than {max_bytes} bytes. Name fewer adapters, or none: then all are looked at."
        )


class TooManyRefreshes(LoradropError):
    """A pool has accepted as many refreshes in the last minute as it does."""

    code = "too_many_refreshes"

    def __init__(self, *, per_minute: int, retry_after_seconds: int) -> None:
        super().__init__(
            f"{per_minute} refreshes were asked for in the last minute, and no more are taken. Ask again in "
            f"{retry_after_seconds} s; one refresh without names looks at everything."
        )
        self.retry_after_seconds = retry_after_seconds


class DiscoveryError(LoradropError, ValueError):
    """The prefix as a whole could not be read: missing, not a directory, not readable.

    A ValueError too, which is what callers of `loradrop.watcher.discovery` may know to catch.

    It never means "empty": nothing may be removed because of it.
    """

    code = "prefix_unreadable"
