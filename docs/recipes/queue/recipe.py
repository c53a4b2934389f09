"""flatrate's queues from Python, for those who send: the keys and the script of the Go package queue, whose consumers receive.
The client is that of redis-py or valkey-py; give it a socket_timeout. Python 3.9 or later.

    producer = Producer(client, "orders")
    sent = producer.send(b"...", group="customer:7", dedup_id="order-42")
    sent.id, sent.duplicate  # an exception is no message sent, or one of which nobody knows

All times are whole ms. Text is sent as UTF-8.
"""
import base64
import collections
import hashlib
import pathlib
import random
import re
import secrets

_SCRIPT = (pathlib.Path(__file__).resolve().parents[3] / "queue" / "send.lua").read_bytes()
_SHA = hashlib.sha1(_SCRIPT).hexdigest()

_LONGEST = 366 * 86_400_000  # ms
_BATCH, _BATCH_BYTES = 128, 1 << 20  # in one call

Sent = collections.namedtuple("Sent", "id sequence duplicate error")


class QueueError(Exception):
    """The queue is not there, was deleted, or is not what the message is for."""


class FullError(QueueError):
    """The queue's quota has no room for the message."""


def _bytes(text):
    return text.encode() if isinstance(text, str) else bytes(text)


def escape(name):
    name = _bytes(name)
    if not name:
        return b"%"
    escaped = re.sub(rb"[\x00-\x20\x7f%{}]", lambda m: b"%%%02X" % m[0][0], name)
    return b"%~" + hashlib.sha256(name).hexdigest().encode() if len(escaped) > 512 else escaped


def _label(text):
    return escape(text) if text else b""


def keys(prefix, name, partition):
    head = b"%s:queue:{%s}:" % (_bytes(prefix), escape(_bytes(name) + b":%d" % partition))
    return [head + b"meta", head + b"gone"]


def partition_of(where, parts):
    """The partition of whatever has to be in one: FNV-1a of 64 bits, folded."""
    h = 14695981039346656037
    for byte in where:
        h = (h ^ byte) * 1099511628211 % 2**64
    return (h ^ h >> 32) % parts


class Message:
    """What is sent: an argument of the script, and what it has to be in one partition with (empty: it is all the same)."""

    def __init__(self, id, fifo, parts, max_body, body, attributes=None, group="", dedup_id="", delay=0, unique="", unique_for=0):
        body, group, dedup_id, unique = _bytes(body), _bytes(group), _bytes(dedup_id), _bytes(unique)
        attributes = {_bytes(name): _bytes(value) for name, value in (attributes or {}).items()}
        for what, label in (("group", group), ("dedup_id", dedup_id), ("unique", unique)):
            if len(label) > 128:
                raise ValueError("%s has over 128 bytes" % what)
        for name in attributes:
            if not 1 <= len(name) <= 256 or name.startswith(b"fr."):
                raise ValueError("attribute %r: its name has not 1 to 256 bytes, or begins with fr." % name)
        if len(attributes) > 100 or len(body) + sum(len(n) + len(v) for n, v in attributes.items()) > max_body:
            raise ValueError("over 100 attributes, or over %d bytes with the body" % max_body)
        for what, ms in (("delay", delay), ("unique_for", unique_for)):
            if isinstance(ms, bool) or not isinstance(ms, int) or not 0 <= ms <= _LONGEST:
                raise ValueError("%s is %r, not from 0 to %d" % (what, ms, _LONGEST))
        if unique_for and not unique:
            raise ValueError("unique_for without unique")
        if fifo and (not group or delay):
            raise QueueError("a FIFO queue requires a group, and has no delay of a message")
        dedup, key = _label(dedup_id), _label(unique)
        self.id, self.where = id, group or key or dedup
        if fifo and parts > 1 and dedup:
            dedup = b"%d/%s/%s" % (len(group), _label(group), dedup)
        options = b""
        if group or dedup or key or delay:
            words = [b"%d" % delay if delay else b"", dedup, key, b"%d" % unique_for if key else b"", b"", b"", b""]
            options = b" " + b" ".join(words) + b"\n"
        text = b"".join(b"%d:%d:%s%s" % (len(n), len(v), n, v) for n, v in sorted(attributes.items()))
        self.arg = b"%s%s %d %s %s\n%s%s" % (options, _bytes(id), len(text), _label(group), key, text, body)


class Producer:
    """Sends to a queue that is there: a Go program makes it, or flatrate queue send --create."""

    def __init__(self, client, name, prefix="fr", max_body=256 << 10):
        if not prefix or len(prefix.encode()) > 64 or re.search(r"[\x00-\x20\x7f{}]", prefix):
            raise ValueError("prefix is empty, over 64 bytes, or has a brace, a space or a control byte")
        if not 1 <= len(_bytes(name)) <= 256:
            raise ValueError("the name has not 1 to 256 bytes")
        self._client, self._name, self._prefix, self._max_body = client, name, prefix, max_body
        self._parts = None

    def open(self):
        """Asks what the queue is; the first send does so too."""
        fifo, parts = self._client.hmget(keys(self._prefix, self._name, 0)[0], "fifo", "parts")
        if fifo is None or parts is None:
            raise QueueError("there is no such queue")
        self._fifo, self._parts = int(fifo) == 1, int(parts)
        self._waiting = [0] * self._parts

    def send(self, body, **options):
        """Sends one message. FullError: there is no room. Another exception: it may have been sent; give it a dedup_id to repeat it."""
        sent = self.send_batch([dict(options, body=body)])[0]
        if sent.error:
            raise sent.error
        return sent

    def send_batch(self, messages):
        """Sends messages, dicts of send's arguments; each stands for itself, and has an error if it was not sent."""
        if self._parts is None:
            self.open()
        results, parts = [None] * len(messages), {}
        for i, m in enumerate(messages):
            id = base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode()
            message = Message(id, self._fifo, self._parts, self._max_body, **m)
            parts.setdefault(self._choose(message.where), []).append((i, message))
        for partition, queued in parts.items():
            while queued:
                n, size = 1, len(queued[0][1].arg)
                while n < len(queued) and n < _BATCH and size + len(queued[n][1].arg) <= _BATCH_BYTES:
                    size += len(queued[n][1].arg)
                    n += 1
                batch, queued = queued[:n], queued[n:]
                try:
                    sent = self._call(partition, [m for _, m in batch])
                except Exception as err:  # those of other calls stand for themselves
                    sent = [Sent(None, 0, False, err)] * n
                for (i, _), one in zip(batch, sent):
                    results[i] = one
        return results

    def _choose(self, where):
        if where:
            return partition_of(where, self._parts)
        return min((random.randrange(self._parts) for _ in range(2)), key=lambda p: self._waiting[p])

    def _call(self, partition, messages):
        reply = self.run(partition, [m.arg for m in messages])
        if reply[0] < 0:
            self._parts = None
            raise QueueError("the queue was deleted" if reply[0] == -1 else "there is no such queue")
        self._waiting[partition] = reply[0]
        if len(reply) == 2:  # all were sent
            first = reply[1] - len(messages) + 1
            return [Sent(m.id, first + i if self._fifo else 0, False, None) for i, m in enumerate(messages)]
        return [self._sent(m, status.decode() if isinstance(status, bytes) else status) for m, status in zip(messages, reply[2:])]

    @staticmethod
    def _sent(message, status):
        if status[0] == "s":
            return Sent(message.id, int(status[1:]), False, None)
        if status[0] == "d":
            return Sent(status[1:], 0, True, None)
        if status[0] != "f":
            return Sent(None, 0, False, QueueError("the queue refused it: " + status))
        return Sent(None, 0, False, FullError("the queue is full"))

    def run(self, partition, args, *now):
        """Sends the script; the test vectors say what it answers. now, in Unix ms, is for tests only."""
        where = keys(self._prefix, self._name, partition)
        args = [len(args), *args, *now]
        try:
            return self._client.evalsha(_SHA, len(where), *where, *args)
        except Exception as err:
            if type(err).__name__ != "NoScriptError":
                raise  # it may have been sent: do not repeat it
        return self._client.eval(_SCRIPT, len(where), *where, *args)
