"""flatrate's lock from Python: the keys and scripts of the Go package lock, so that both sides exclude
each other. The client is that of redis-py or valkey-py; give it a socket_timeout. Python 3.9 or later.

    locker = Locker(client, ttl=30.0)
    with locker.acquire("invoice:42", timeout=5.0) as lock:
        charge(42, lock.fence, lock.lost)  # lost is an Event that is set when the lock is lost
"""
import hashlib
import pathlib
import re
import secrets
import threading
import time

_root = pathlib.Path(__file__).resolve().parents[3]
SCRIPTS = {
    name: (_root / file).read_text()
    for name, file in {
        "acquire": "lock/acquire.lua", "extend": "internal/lease/extend.lua", "release": "lock/release.lua",
    }.items()
}

_PLACE = 3000  # ms that a waiter keeps its place without asking again
_CLAIM = 100  # ms that a grant waits to be claimed
_POLL = 0.04  # s between two questions of a waiter: less than half of _CLAIM
_GONE = 3000  # ms that a call whose answer was lost may still be on its way
_CHANNEL = "recipe"  # nobody listens there: waiters poll


def escape(name):
    if not name:
        return b"%"
    escaped = re.sub(rb"[\x00-\x20\x7f%{}]", lambda m: b"%%%02X" % m[0][0], name)
    return b"%~" + hashlib.sha256(name).hexdigest().encode() if len(escaped) > 512 else escaped


def keys(prefix, name, token):
    """The keys of acquire.lua and release.lua; extend.lua takes the first."""
    name, token = (s.encode() if isinstance(s, str) else s for s in (name, token))
    digest = hashlib.sha256(name).digest()
    head = b"%s:lock:{%d}:" % (prefix.encode(), digest[0] << 2 | digest[1] >> 6)
    parts = [head + kind + b":" + escape(name) for kind in (b"own", b"wait", b"place")]
    return parts + [head + b"gone:" + escape(token), head + b"fence"]


class LockLost(Exception):
    """The lock was lost before it was released."""


class Locker:
    """Takes locks. ttl: for how many seconds a holder that died blocks the others, from 0.1 to a day."""

    def __init__(self, client, prefix="fr", ttl=30.0):
        if not 0.1 <= ttl <= 86400:
            raise ValueError("ttl is not from 0.1 to 86400 s")
        if not prefix or len(prefix.encode()) > 64 or re.search(r"[\x00-\x20\x7f{}]", prefix):
            raise ValueError("prefix is empty, over 64 bytes, or has a brace, a space or a control byte")
        self._client, self._prefix, self._ttl = client, prefix, int(ttl * 1000)

    def try_acquire(self, name):
        """A Lock, or None if somebody holds the lock or waits for it."""
        return self._attempt(name, None)

    def acquire(self, name, timeout=60.0):
        """A Lock, once it is this caller's turn; TimeoutError after timeout seconds."""
        return self._attempt(name, time.monotonic() + timeout)

    def _attempt(self, name, end):
        if not name:
            raise ValueError("the name is empty")
        token = secrets.token_hex(16)
        all_keys = keys(self._prefix, name, token)
        try:
            while True:
                sent = time.monotonic()
                keep = 0 if end is None else _PLACE
                fence, _ = self._client.eval(SCRIPTS["acquire"], 5, *all_keys, token, self._ttl, keep, _CHANNEL, _CLAIM)
                if fence:
                    return Lock(self._client, name, all_keys, token, fence, self._ttl, sent)
                if end is None:
                    return None
                if time.monotonic() > end:
                    raise TimeoutError("lock %r: not acquired in time" % (name,))
                time.sleep(_POLL)
        except BaseException:
            try:  # what an unanswered call may have taken is given back, or ends with its time to live
                self._client.eval(SCRIPTS["release"], 5, *all_keys, token, _CLAIM, _GONE, "")
            except Exception:
                pass
            raise


class Lock:
    """A lock that was acquired; a context manager that releases it."""

    def __init__(self, client, name, all_keys, token, fence, ttl, sent):
        self.name, self.fence = name, fence
        self.lost = threading.Event()  # set when the lock is released or lost: before another can get it
        self._client, self._keys, self._token, self._ttl = client, all_keys, token, ttl
        self._until = self._end(sent)
        self._guard = threading.Lock()
        threading.Thread(target=self._expire, daemon=True).start()
        threading.Thread(target=self._renew, daemon=True).start()

    def _end(self, sent):
        """The last confirmed call was sent at sent: plus the time to live, less 1% and 2 ms."""
        return sent + self._ttl * 0.99 / 1000 - 0.002

    def _expire(self):
        while True:
            with self._guard:
                left = self._until - time.monotonic()
                if left <= 0:
                    self.lost.set()
            if self.lost.wait(max(0, left)):
                return

    def _renew(self):
        pause = self._ttl / 3000
        while not self.lost.wait(pause):
            sent = time.monotonic()
            try:
                answer = self._client.eval(SCRIPTS["extend"], 1, self._keys[0], self._token, self._ttl)
            except Exception:
                pause = min(1, self._ttl / 20000)  # nobody knows: try again
                continue
            with self._guard:
                if answer != 1:
                    self.lost.set()  # taken by another, or gone: it is never made anew
                    return
                self._until, pause = self._end(sent), self._ttl / 3000

    def release(self):
        """Gives the lock back, to the next who waits; LockLost if it was not held any more."""
        lost = self.lost.is_set()
        self.lost.set()
        held, _, _ = self._client.eval(SCRIPTS["release"], 5, *self._keys, self._token, _CLAIM, 0, "")
        if lost or not held:
            raise LockLost("lock %r: was lost before its release" % (self.name,))

    def __enter__(self):
        return self

    def __exit__(self, kind, err, trace):
        try:
            self.release()
        except Exception:
            if kind is None:
                raise
