"""`Revocation`: the option that lets sessions end which live in cookies."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from cookiesession.errors import ConfigurationError
from cookiesession.stores import Store


class Revocation:
    """Where a manager without a store writes down which sessions have ended: an option of `SessionManager`.

    - `store`: any `Store`. It holds one small record for each session that was ended or renewed, for as long as the
      session could have lived. One that loses records brings sessions back: it must not evict any.
    - `check_every`: how long a process relies on what the store has answered about a session. What another process has
      ended is noticed after so long at the latest, and what this one has, at once. 0 to ask for every request. A
      renewal always asks.
    - `fail_open`: what a session counts as while the store does not answer: as ended, whose cookie stays as it is, or
      if this is true as live, unless the process knows that it has ended. Each such request is a `StoreFailed` event.
    - `track`: keeps a record of each session with a subject, without its data, so that `SessionManager.sessions()` can
      list them. Costs up to three calls of the store whenever such a session is written, but for its data alone; with
      an `idle_timeout`, for its data too once in each half of that. For half of it, what was unused is still listed.

    Sessions of a subject, and all, end by when they began: as exactly as the clocks of the instances agree. Where the
    manager's lifetime is made shorter, sessions that have ended may come back if it is made longer again before those
    that were sealed by then have expired.

    Raises `ConfigurationError` for options that cannot work.

    >>> from cookiesession.stores.memory import MemoryStore
    >>> Revocation(MemoryStore(), check_every=timedelta(seconds=2)).check_every
    datetime.timedelta(seconds=2)
    """

    def __init__(
        self,
        store: Store,
        *,
        check_every: timedelta = timedelta(seconds=5),
        fail_open: bool = False,
        track: bool = False,
    ) -> None:
        if not isinstance(store, Store) or isinstance(store, type):  # a class has the methods too
            raise ConfigurationError("a revocation's store is a Store, such as RedisStore(url)")
        if not isinstance(check_every, timedelta) or not timedelta(0) <= check_every <= timedelta(days=1):
            raise ConfigurationError("check_every is a timedelta of at most one day")
        for name, value in (("fail_open", fail_open), ("track", track)):
            if not isinstance(value, bool):  # "no" would be true
                raise ConfigurationError(f"{name} is True or False")
        self.store: Final = store
        self.check_every: Final = check_every
        self.fail_open: Final = fail_open
        self.track: Final = track
