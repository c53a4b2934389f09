"""What TestRecipes runs: python3 client.py vectors|contend|kept SOCKET [ROUNDS]. It prints one line of JSON."""
import json
import pathlib
import random
import sys
import time

import redis

recipes = pathlib.Path(__file__).resolve().parents[3] / "docs" / "recipes" / "lock"
sys.path.insert(0, str(recipes))
sys.dont_write_bytecode = True
from recipe import SCRIPTS, LockLost, Locker, keys  # noqa: E402

client = redis.Redis(unix_socket_path=sys.argv[2], socket_timeout=10)
wrong = []
last = 0


def matches(got, want):
    global last
    if isinstance(want, list):
        return isinstance(got, list) and len(got) == len(want) and all(map(matches, got, want))
    if want == "fence":
        grown, last = got > last, got
        return grown
    if isinstance(want, dict):
        return want["from"] <= got <= want["to"]
    return got == (want.encode() if isinstance(want, str) else want)


def vectors():
    v = json.loads((recipes / "vectors.json").read_text())
    for k in v["keys"]:
        got = [key.decode() for key in keys("fr", k["name"], k["token"])]
        if got != k["keys"]:
            wrong.append("keys of %r: %r" % (k["name"], got))
    for s in v["steps"]:
        some = keys("fr", "abc", s["token"])[: 1 if s["script"] == "extend" else 5]
        got = client.eval(SCRIPTS[s["script"]], len(some), *some, *s["args"])
        if not matches(got, s["reply"]):
            wrong.append("%s: %r" % (s["says"], got))
    return {"keys": len(v["keys"]), "steps": len(v["steps"])}


def contend():
    locker, overlaps, turns = Locker(client, ttl=5.0), 0, int(sys.argv[3])
    for _ in range(turns):
        with locker.acquire("one", timeout=60.0) as lock:
            overlaps += client.incr("inside") != 1
            client.rpush("fences", lock.fence)
            time.sleep(random.random() * 0.003)
            client.decr("inside")
            if lock.lost.is_set():
                wrong.append("lost")
    return {"turns": turns, "overlaps": overlaps}


def kept():
    """Holds a short lock over several times to live: only renewals keep it. Then it loses it."""
    locker = Locker(client, ttl=1.0)
    lock = locker.acquire("kept")
    if lock.lost.wait(2.5):
        wrong.append("not renewed")
    if locker.try_acquire("kept"):
        wrong.append("a second holder")
    client.delete(keys("fr", "kept", "")[0])
    lock.lost.wait()
    if client.exists(keys("fr", "kept", "")[0]):
        wrong.append("made anew by a renewal")
    try:
        lock.release()
        wrong.append("a lost lock was released")
    except LockLost:
        pass
    for bad in (lambda: locker.acquire(""), lambda: Locker(client, ttl=0), lambda: Locker(client, prefix="a{b")):
        try:
            bad()
            wrong.append("accepted a bad argument")
        except ValueError:
            pass
    locker.acquire("kept").release()
    return {}


print(json.dumps({**globals()[sys.argv[1]](), "wrong": wrong}))
