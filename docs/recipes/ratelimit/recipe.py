"""flatrate's rate limits from Python: the keys and the script of the Go package ratelimit, so that all count together.
The client is that of redis-py or valkey-py; give it a socket_timeout. Python 3.9 or later.

    limiter = RateLimiter(client, [{"algorithm": "bucket", "limit": 10, "window": 1000, "burst": 50}])
    result = limiter.allow("user:42")  # an exception is no admission
    if not result.allowed:
        retry(result.retry_after)  # ms; math.inf if the cost is above a limit
"""
import collections
import hashlib
import math
import pathlib
import re
import secrets

_SCRIPT = (pathlib.Path(__file__).resolve().parents[3] / "ratelimit" / "decide.lua").read_bytes()
_SHA = hashlib.sha1(_SCRIPT).hexdigest()

_LETTERS = {"fixed": "w", "sliding": "s", "log": "l", "bucket": "b", "concurrency": "c", "quota": "q"}
_PERIODS = {"day": 1, "week": 2, "month": 3}
_DAYS = {"day": 1, "week": 7, "month": 28}
_MOST = 2**53
_LONGEST = 100 * 365 * 86_400_000  # ms

Result = collections.namedtuple("Result", "allowed granted retry_after limits at token")
LimitResult = collections.namedtuple("LimitResult", "limit remaining reset_after retry_after")


def escape(name):
    name = name.encode() if isinstance(name, str) else name
    if not name:
        return b"%"
    escaped = re.sub(rb"[\x00-\x20\x7f%{}]", lambda m: b"%%%02X" % m[0][0], name)
    return b"%~" + hashlib.sha256(name).hexdigest().encode() if len(escaped) > 512 else escaped


def _group(name):
    return escape(name).replace(b":", b"%3A")


def _whole(what, n, least, most):
    if isinstance(n, bool) or not isinstance(n, int) or not least <= n <= most:
        raise ValueError("%s is %r, not from %d to %d" % (what, n, least, most))
    return n


def _short(ms):
    for length, name in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")):
        if ms % length == 0:
            return "%d%s" % (ms // length, name)
    return "%dms" % ms


class _Limit:
    """What a limit is in a key and in the script's arguments."""

    def __init__(self, spec):
        letter = _LETTERS.get(spec["algorithm"])
        if letter is None:
            raise ValueError("algorithm is %r" % spec["algorithm"])
        limit = _whole("limit", spec.get("limit"), 1, 10_000 if letter == "l" else _MOST)
        self.ticks, self.shape = 0, letter
        if letter == "c":
            self.args = ["c", limit, _whole("lease", spec.get("lease", 30_000), 1, _LONGEST), ""]
            return
        if letter == "q":
            period = spec.get("period")
            if period not in _PERIODS:
                raise ValueError("period is %r" % period)
            offset = _whole("offset", spec.get("offset", 0), 0, _DAYS[period] * 86_400_000 - 1)
            self.shape = "q" + period[0] + ("-" + _short(offset) if offset else "")
            self.args = ["q", limit, _PERIODS[period], offset]
            return
        window = _whole("window", spec.get("window"), 1, _LONGEST)
        self.shape = letter + _short(window)
        self.args = [letter, limit, window, 0]
        if letter == "s":
            self.args[3] = -(-window // 60)
        elif letter == "l":
            self.args[3] = max(2, -(-(4 * window - 1).bit_length() // 8))
        elif letter == "b":
            common = math.gcd(limit, window)
            self.ticks, unit = _whole("the numerator of the rate", limit // common, 1, 10**9), window // common
            burst = _whole("burst", spec.get("burst", limit), 1, _MOST)
            if burst > _MOST // unit or burst * unit // self.ticks > _LONGEST:
                raise ValueError("burst is %d: too much beside the rate" % burst)
            self.shape = "b%d-%s-%d" % (limit, _short(window), burst)
            self.args = ["b", burst, self.ticks, unit]

    def ms(self, n):
        return -(-n * 1000 // self.ticks) / 1000 if self.ticks else n


class RateLimiter:
    """Limits for any number of subjects: one to 16, at most one of them of concurrency. All times are whole ms."""

    def __init__(self, client, limits, prefix="fr", name=""):
        if not prefix or len(prefix.encode()) > 64 or re.search(r"[\x00-\x20\x7f{}]", prefix):
            raise ValueError("prefix is empty, over 64 bytes, or has a brace, a space or a control byte")
        _whole("the number of limits", len(limits), 1, 16)
        self._client, self._limits = client, [_Limit(spec) for spec in limits]
        shapes = [limit.shape for limit in self._limits]
        if shapes.count("c") > 1:
            raise ValueError("a second limit of concurrency")
        self._places = "c" in shapes
        groups = [_group(name)] if name else []
        self._head = b":".join([prefix.encode(), b"rate", *groups, _group("".join(shapes)), b""])

    def keys(self, subject):
        key = self._head + b"{" + escape(subject) + b"}"
        return [key, key + b":held"] if self._places else [key]

    def allow(self, subject, cost=1):
        """Asks for cost units, all or none."""
        return self._ask(subject, _whole("the cost", cost, 1, _MOST), 1)

    def allow_at_most(self, subject, n):
        """Asks for up to n units: Result.granted says how many."""
        return self._ask(subject, 1, _whole("n", n, 1, _MOST))

    def peek(self, subject, cost=1):
        """Says what allow would, and changes nothing."""
        return self._ask(subject, _whole("the cost", cost, 1, _MOST), 0)

    def refund(self, subject, result, n):
        """Gives back n of the units that result was granted."""
        if _whole("n", n, 0, result.granted) > 0:
            self.run(subject, "", n, -result.at)

    def release(self, subject, result):
        """Gives up the place of a limit of concurrency; False if it was lost to the end of its lease."""
        return bool(result.token) and self._client.zrem(self.keys(subject)[1], result.token) > 0

    def _ask(self, subject, cost, count):
        token = secrets.token_hex(16) if count > 0 and self._places else ""
        at, times, *numbers = self.run(subject, token, cost, count)
        limits = []
        for i, limit in enumerate(self._limits):
            remaining, reset, now = numbers[3 * i : 3 * i + 3]
            retry = 0 if times > 0 else math.inf if now < 0 else limit.ms(now)
            limits.append(LimitResult(limit.args[1], remaining, limit.ms(reset), retry))
        retry = max(limit.retry_after for limit in limits)
        allowed = times > 0 if count > 0 else retry == 0
        return Result(allowed, times * cost, retry, limits, at, token if allowed else "")

    def run(self, subject, token, cost, count, *now):
        """Sends the script; the test vectors say what it answers. now, in Unix microseconds, is for tests only."""
        keys, args = self.keys(subject), [len(self._limits), 1]
        for limit in self._limits:
            args += limit.args[:3] + [token] if limit.shape == "c" else limit.args
        args += [cost, count, *now]
        try:
            return self._client.evalsha(_SHA, len(keys), *keys, *args)
        except Exception as err:
            if type(err).__name__ != "NoScriptError":
                raise  # it may have been counted: do not repeat it
        return self._client.eval(_SCRIPT, len(keys), *keys, *args)
