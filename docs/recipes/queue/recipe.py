"""Messages for flatrate's queues from Python: the keys and the script of the Go package queue. The client is that of redis-py or
valkey-py; give it a socket_timeout. Python 3.9 or later.

    producer = Producer(client, "mail")
    sent = producer.send(b"hello", group="tenant 1", dedup="order-42")  # {"id": ..., "sequence": ..., "duplicate": ...}

The queue has to be there: whoever consumes it in Go makes it.
"""
import base64
import hashlib
import pathlib
import re
import secrets

SCRIPT = (pathlib.Path(__file__).resolve().parents[3] / "queue/send.lua").read_text()


class QueueFull(Exception):
    """The queue's quota has no room for the message."""


class NoQueue(Exception):
    """There is no such queue, or it was deleted."""


def _bytes(s):
    return s.encode() if isinstance(s, str) else bytes(s)


def escape(name):
    if not name:
        return b""
    escaped = re.sub(rb"[\x00-\x20\x7f%{}]", lambda m: b"%%%02X" % m[0][0], name)
    return b"%~" + hashlib.sha256(name).hexdigest().encode() if len(escaped) > 512 else escaped


def partition(key, parts):
    """The partition of what has to be together: FNV-1a of 64 bits, folded."""
    h = 14695981039346656037
    for c in key:
        h = (h ^ c) * 1099511628211 & 0xFFFFFFFFFFFFFFFF
    return (h ^ h >> 32) % parts


def argument(id, body, *, fifo=False, parts=1, attributes=None, group=b"", dedup=b"", delay=0, unique=b"", unique_for=0):
    """What send.lua gets for a message; delay and unique_for are ms."""
    body, group, dedup, unique = map(_bytes, (body, group, dedup, unique))
    pairs = sorted((_bytes(n), _bytes(v)) for n, v in (attributes or {}).items())
    for what, text in (("group", group), ("dedup", dedup), ("unique", unique)):
        if len(text) > 128:
            raise ValueError(what + " is over 128 bytes")
    for name, _ in pairs:
        if not 1 <= len(name) <= 256 or name.startswith(b"fr."):
            raise ValueError("an attribute's name is empty, over 256 bytes, or begins with fr.")
    if len(pairs) > 100:
        raise ValueError("over 100 attributes")
    if fifo and (not group or delay):
        raise ValueError("a FIFO queue needs a group, and has no delay of a message")
    encoded = b"".join(b"%d:%d:%b%b" % (len(n), len(v), n, v) for n, v in pairs)
    mark = escape(dedup)
    if fifo and parts > 1 and mark:
        mark = b"%d/%b/%b" % (len(group), escape(group), mark)
    options = b""
    if group or mark or unique or delay:
        options = b" %b %b %b %b   \n" % (
            b"%d" % delay if delay else b"", mark, escape(unique), b"%d" % unique_for if unique else b"")
    return options + b"%b %d %b %b\n" % (_bytes(id), len(encoded), escape(group), escape(unique)) + encoded + body


class Producer:
    """Sends to one queue. max_body: bytes of body and attributes, as Config.MaxBody in Go."""

    def __init__(self, client, name, prefix="fr", max_body=256 << 10):
        name = _bytes(name)
        if not 1 <= len(name) <= 256:
            raise ValueError("name has not 1 to 256 bytes")
        if not prefix or len(prefix.encode()) > 64 or re.search(r"[\x00-\x20\x7f{}]", prefix):
            raise ValueError("prefix is empty, over 64 bytes, or has a brace, a space or a control byte")
        self._client, self._name, self._prefix, self._max = client, name, prefix.encode(), max_body
        self._known = None

    def keys(self, part):
        head = b"%b:queue:{%b}:" % (self._prefix, escape(self._name + b":%d" % part))
        return [head + b"meta", head + b"gone"]

    def _open(self):
        if self._known is None:
            fifo, parts = self._client.hmget(self.keys(0)[0], "fifo", "parts")
            if fifo is None:
                raise NoQueue(self._name)
            self._known = fifo == b"1", int(parts)
        return self._known

    def send(self, body, **message):
        """Sends a message: attributes, group, dedup, delay and unique_for (ms), unique. One round trip, after a first one."""
        fifo, parts = self._open()
        id = base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=")
        arg = argument(id, body, fifo=fifo, parts=parts, **message)
        size = len(_bytes(body)) + sum(len(_bytes(n)) + len(_bytes(v)) for n, v in (message.get("attributes") or {}).items())
        if size > self._max:
            raise ValueError("body and attributes are over %d bytes" % self._max)
        where = next((_bytes(message[k]) for k in ("group", "unique") if message.get(k)), escape(_bytes(message.get("dedup", b""))))
        part = partition(where, parts) if where else secrets.randbelow(parts)
        reply = self._client.eval(SCRIPT, 2, *self.keys(part), 1, arg)
        if reply[0] < 0:
            self._known = None
            raise NoQueue(self._name)
        status = reply[2].decode() if len(reply) > 2 else "s%d" % reply[1]
        if status == "f":
            raise QueueFull(self._name)
        if status[0] == "s":
            return {"id": id.decode(), "sequence": int(status[1:]), "duplicate": False}
        return {"id": status[1:] or id.decode(), "sequence": 0, "duplicate": True}
