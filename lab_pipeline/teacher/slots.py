"""Bound how many requests a server has at once over all processes and pods that share a home."""

from __future__ import annotations

import fcntl
import random
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

_TRIES = 8
"""How many slots are tried at a time: on NFS, each takes a call to the file server."""
_FRESH_SECONDS = 1.0
"""How long it is believed that other processes use the slots, or that none does."""


class Slots:
    """Slots for requests to a server: each request in flight holds the `flock` of one of the folder's files.

    A process that dies gives its slots back. Whoever shares the folder with a smaller limit uses the first slots only.

    Args:
        folder: On a volume that all processes share; created at the first request.
        limit: Number of slots.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._held: dict[int, IO[bytes]] = {}
        self._users: IO[bytes] | None = None
        self._others = False
        self._known_until = 0.0

    def take(self) -> bool:
        """Take a slot, if one is found free; `give_back` must follow."""
        if self._users is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._users = (self._folder / "users").open("ab")
            fcntl.flock(self._users, fcntl.LOCK_SH)
        free = [slot for slot in range(self._limit) if slot not in self._held]
        for slot in random.sample(free, min(_TRIES, len(free))):
            file = (self._folder / str(slot)).open("ab")
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._held[slot] = file
                return True
            file.close()
        return False

    def give_back(self) -> None:
        """Give any slot back."""
        _, file = self._held.popitem()
        file.close()

    def wanted_by_others(self) -> bool:
        """Tell whether other processes send requests too, which then must have a chance at a slot that was given back."""
        if time.monotonic() > self._known_until:
            assert self._users
            try:
                fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._others = False
            except BlockingIOError:
                self._others = True
            fcntl.flock(self._users, fcntl.LOCK_SH)  # a failed try for the other lock may have lost this one
            self._known_until = time.monotonic() + _FRESH_SECONDS
        return self._others
