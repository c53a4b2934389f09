"""flatrate's sessions from Python: the keys and scripts of the Go package session, so that both sides share them.

The client is redis-py's or valkey-py's; give it a socket_timeout. Python 3.9 or later.

    sessions = Sessions(client)
    s = sessions.get(request.cookies.get("__Host-session"))
    if s is not None:
        s.value["theme"] = "dark"
        s.save()  # sends the member "theme" only; False if the session has ended
"""
import base64
import copy
import hashlib
import json
import os
import re

_HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "session")


def _script(name):
    with open(os.path.join(_HERE, name + ".lua"), encoding="utf-8") as f:
        return f.read()


SCRIPTS = {name: _script(name) for name in ("create", "read", "save", "end")}

_FORM = re.compile(r"[A-Z2-7]{26}\.(?:[A-Za-z0-9_-]{4}|[A-Za-z0-9_-]{16})", re.ASCII)
_SPOT = re.compile(r"(?:[A-Za-z0-9_-]{4}|[A-Za-z0-9_-]{16}):[A-Za-z0-9_-]{22}", re.ASCII)
_RECORD = re.compile(r"1([0-9]{10,}) ([0-9]+) ([0-9]+) ([0-9]+)\n(\{.*\})", re.ASCII | re.DOTALL)
_NAME = re.compile(r'@|.*["\\\x00-\x1f\x7f]', re.DOTALL)


def _base64(b):
    return base64.urlsafe_b64encode(b).decode().rstrip("=")


def digest(token):
    return _base64(hashlib.sha256(token.encode()).digest()[:16])


def user_tag(user):
    return _base64(hashlib.sha256(("user:" + user).encode()).digest()[:12])


def place(token):
    """Where the session of a token lies, or None for what can't be a token."""
    if not isinstance(token, str) or not _FORM.fullmatch(token):
        return None
    return token[27:] + ":" + digest(token)


def keys(prefix, at):
    """The keys of the scripts about one session: its own, and its user's index if it has a user."""
    tag, token = at.split(":")
    own = f"{prefix}:sess:{{{tag}}}:{token}"
    return [own, f"{prefix}:sess:{{{tag}}}:user"] if len(tag) == 16 else [own]


def new_token(tag=None):
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    secret = "".join(letters[b & 31] for b in os.urandom(26))
    return secret + "." + (tag or _base64(os.urandom(3)))


class Record:
    """What lies in a session's key."""

    def __init__(self, text):
        self.moved = ""
        if text.startswith("2"):
            self.moved, _, text = text[1:].partition("\n")
            if not _SPOT.fullmatch(self.moved):
                raise ValueError("the key holds no session")
        m = _RECORD.fullmatch(text)
        if not m:
            raise ValueError("the key holds no session")
        self.seen, self.created, self.idle, self.absolute = (int(n) for n in m.groups()[:4])
        members = json.loads(m.group(5))
        if "@k" in members:
            raise ValueError("the session is sealed")
        self.value = {name: v for name, v in members.items() if not name.startswith("@")}


def parse(text):
    """None for what remembers a session that was ended."""
    return None if text == "-" else Record(text)


def _encode(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _lines(value):
    for name in value:
        if _NAME.match(name):
            raise ValueError(f"the name {name!r} can't be a member's")
    return {name: _encode(v) for name, v in value.items()}


class Sessions:
    def __init__(self, client, prefix="fr", idle=1_800_000, absolute=0):
        self.client, self.prefix, self.idle, self.absolute = client, prefix, idle, absolute

    def run(self, script, all_keys, *args):
        def text(reply):
            if isinstance(reply, bytes):
                return reply.decode()
            return [text(r) for r in reply] if isinstance(reply, list) else reply

        return text(self.client.eval(SCRIPTS[script], len(all_keys), *all_keys, *args))

    def get(self, token):
        """The session of a token, or None."""
        at = place(token)
        found = self._look(at) if at else None
        if found is None:
            return None
        target, moved = at, found.moved
        for _ in range(4):
            if not moved:
                return Session(self, token, target, found.value)
            target = moved  # it got another token a moment ago: it is as it was
            now = self._look(target)
            if now is None:
                return None
            moved = now.moved
        return None

    def _look(self, at):
        text, _ = self.run("read", keys(self.prefix, at))
        return None if text is None else parse(text)

    def create(self, value, user=None):
        token = new_token(None if user is None else user_tag(user))
        body = "{" + ",\n".join(f'"{name}":{v}' for name, v in _lines(value).items()) + "}"
        self.run("create", keys(self.prefix, place(token)), self.idle, self.absolute, body)
        return Session(self, token, place(token), value)

    def end(self, at):
        """Ends a session: nothing brings it back."""
        for _ in range(4):
            code, target = self.run("end", keys(self.prefix, at), 3_600_000, "0")
            if code != 3:
                return
            at = target


class Session:
    def __init__(self, sessions, token, at, value):
        self._sessions, self.token, self.at, self.value = sessions, token, at, value
        self._before = _lines(copy.deepcopy(value))

    def save(self):
        """Sends the members that changed; False if the session has ended."""
        now = _lines(self.value)
        args = []
        for name, v in now.items():
            if self._before.get(name) != v:
                args += [name, v]
        for name in self._before:
            if name not in now:
                args += [name, ""]
        for _ in range(4):
            if not args:
                return True
            code, detail = self._sessions.run("save", keys(self._sessions.prefix, self.at), "@=x", *args)
            if code == 3:
                self.at = detail
                continue
            if code == 4:
                raise ValueError(f"the session is too large: {detail} bytes")
            if code == 1:
                self._before = now
            return code == 1
        return False

    def end(self):
        self._sessions.end(self.at)
