"""What the tests run: python3 ratelimit.py vectors|share|places|calls SOCKET [PLAN ROUNDS [CALLERS]]. It prints one line of JSON."""
import json
import math
import pathlib
import random
import sys
import time

import redis

recipes = pathlib.Path(__file__).resolve().parents[3] / "docs" / "recipes" / "ratelimit"
sys.path.insert(0, str(recipes))
sys.dont_write_bytecode = True
from recipe import RateLimiter  # noqa: E402

client = redis.Redis(unix_socket_path=sys.argv[2], socket_timeout=10)
wrong = []


def limiter_of(plan):
    return RateLimiter(client, plan["limits"], name=plan.get("name", ""))


def vectors():
    plans, steps = json.loads((recipes / "vectors.json").read_text())["plans"], 0
    for p in plans:
        client.flushall()
        limiter = limiter_of(p)
        keys = [key.decode() for key in limiter.keys(p["subject"])]
        if keys != p["keys"]:
            wrong.append("%s: keys %r" % (p["says"], keys))
        args = [str(arg) for limit in limiter._limits for arg in limit.args]
        if args != p["args"]:
            wrong.append("%s: arguments %r" % (p["says"], args))
        for s in p["steps"]:
            got = limiter.run(p["subject"], s["token"], s["cost"], s["count"], s["now"])
            if got != s["reply"]:
                wrong.append("%s, step %d: %r" % (p["says"], steps, got))
            steps += 1
    return {"keys": len(plans), "steps": steps}


def together():
    """Waits until all callers are here."""
    client.incr("here")
    while int(client.get("here")) < int(sys.argv[5]):
        time.sleep(0.001)


def share():
    """Takes units until there are none."""
    limiter, turns, denied = limiter_of(json.loads(sys.argv[3])), 0, 0
    together()
    while denied < int(sys.argv[4]):
        result = limiter.allow("shared")
        turns += result.granted
        if not result.allowed:
            denied += 1
            if not result.retry_after > 0 or all(limit.remaining > 0 for limit in result.limits):
                wrong.append("denied: %r" % (result,))
    return {"turns": turns}


def places():
    """Holds places of a limit of two, and looks at how many are inside."""
    limiter, turns, overlaps = limiter_of(json.loads(sys.argv[3])), 0, 0
    while turns < int(sys.argv[4]):
        result = limiter.allow("shared")
        if not result.allowed:
            time.sleep(0.001)
            continue
        turns += 1
        overlaps += client.incr("inside") > 2
        time.sleep(random.random() * 0.003)
        client.decr("inside")
        if not limiter.release("shared", result):
            wrong.append("a place was lost")
        if limiter.release("shared", result):
            wrong.append("a place was released twice")
    return {"turns": turns, "overlaps": overlaps}


def calls():
    """Goes through what the others leave out."""
    limiter = RateLimiter(client, [{"algorithm": "bucket", "limit": 1, "window": 3_600_000, "burst": 10}])
    most = limiter.allow_at_most("a", 7)
    limiter.refund("a", most, 2)
    peek, never, many = limiter.peek("a", 5), limiter.allow("a", 11), limiter.allow("a", 6)
    if not most.allowed or most.granted != 7 or not peek.allowed or peek.granted or peek.limits[0].remaining != 5:
        wrong.append("%r %r" % (most, peek))
    if never.allowed or never.retry_after != math.inf or many.allowed or not 3_590_000 < many.retry_after <= 3_600_000:
        wrong.append("%r %r" % (never, many))
    fixed = {"algorithm": "fixed", "limit": 1, "window": 1}
    for i, bad in enumerate((
        lambda: limiter.allow("a", 0), lambda: limiter.allow("a", 1.5), lambda: limiter.allow("a", 2**54),
        lambda: RateLimiter(client, []), lambda: RateLimiter(client, [fixed], prefix="a{b"),
        lambda: RateLimiter(client, [{**fixed, "algorithm": "gcra"}]), lambda: RateLimiter(client, [{**fixed, "limit": 0}]),
        lambda: RateLimiter(client, [{**fixed, "window": None}]),
        lambda: RateLimiter(client, [{"algorithm": "quota", "limit": 1, "period": "year"}]),
        lambda: RateLimiter(client, [{"algorithm": "concurrency", "limit": 1}] * 2),
    )):
        try:
            bad()
            wrong.append("accepted bad argument %d" % i)
        except ValueError:
            pass
    client.script_flush()
    limiter.peek("a")  # sends the script again
    client.config_set("maxmemory", 1)
    try:
        limiter.allow("a")
        wrong.append("admitted by a full server")
    except redis.ResponseError:
        pass
    return {}


print(json.dumps({**globals()[sys.argv[1]](), "wrong": wrong}))
