"""What the tests run: python3 python.py redis-py HOST PORT TLSPORT CAFILE. It prints one line of JSON."""

import json
import sys

import redis

_, _, host, port, tls_port, ca = sys.argv
results = {}


def same(got, want, what):
    if got != want:
        raise AssertionError(f"{what}: {got!r}, not {want!r}")


def feature(name):
    def run(test):
        try:
            results[name] = test() or "yes"
        except Exception as error:  # whatever it is, it goes into the table
            results[name] = f"{type(error).__name__}: {error}"

    return run


def connect(**more):
    return redis.Redis(host=host, port=int(port), socket_timeout=10, decode_responses=True, **more)


c = connect()
SCRIPT = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end"


@feature("strings")
def strings():
    same(c.set("s", "v", ex=300), True, "SET EX")
    same(c.get("s"), "v", "GET")
    same(c.set("lock", "me", px=5000, nx=True), True, "SET NX")
    same(c.set("lock", "you", px=5000, nx=True), None, "a second SET NX")
    same(c.incr("n"), 1, "INCR")
    same(c.expire("n", 60), True, "EXPIRE")


@feature("hashes")
def hashes():
    same(c.hset("h", mapping={"id": "1", "name": "Alice"}), 2, "HSET")
    same(c.hget("h", "name"), "Alice", "HGET")
    same(c.hmget("h", "id", "no"), ["1", None], "HMGET")
    same(c.hgetall("h"), {"id": "1", "name": "Alice"}, "HGETALL")


@feature("lists")
def lists():
    same(c.lpush("l", "job"), 1, "LPUSH")
    same(c.brpop("l", 1), ("l", "job"), "BRPOP")
    same(c.brpop("l", 0.01), None, "an empty BRPOP")


@feature("streams")
def streams():
    same(c.xgroup_create("x", "g", "0", mkstream=True), True, "XGROUP CREATE")
    entry = c.xadd("x", {"order": "9876"})
    same(c.xreadgroup("g", "a", {"x": ">"}, count=10, block=100), [["x", [(entry, {"order": "9876"})]]], "XREADGROUP")
    same(c.xpending("x", "g")["pending"], 1, "XPENDING")
    same(c.xack("x", "g", entry), 1, "XACK")


@feature("sorted sets")
def sorted_sets():
    pipe = c.pipeline()
    pipe.zremrangebyscore("z", "-inf", 5)
    pipe.zadd("z", {"a": 10})
    pipe.zcard("z")
    pipe.pexpire("z", 60000)
    same([int(reply) for reply in pipe.execute()], [0, 1, 1, 1], "the pipeline")


@feature("scripts")
def scripts():
    same(c.eval(SCRIPT, 1, "lock", "you"), 0, "EVAL")
    same(c.eval(SCRIPT, 1, "lock", "me"), 1, "EVAL")
    same(c.evalsha(c.script_load("return ARGV[1]"), 1, "k", "x"), "x", "EVALSHA")


@feature("pub/sub")
def pub_sub():
    sub = c.pubsub(ignore_subscribe_messages=True)
    sub.subscribe("news")
    sub.get_message(timeout=5)
    c.publish("news", "hello")
    for _ in range(50):
        message = sub.get_message(timeout=0.1)
        if message:
            return same(message["data"], "hello", "the message")
    raise AssertionError("no message")


@feature("RESP3")
def resp3():
    if int(redis.__version__.split(".")[0]) < 5:
        return "not in it"
    three = connect(protocol=3)
    same(three.hset("r", "a", "1"), 1, "HSET")
    same(three.hgetall("r"), {"a": "1"}, "HGETALL")
    same(str(three.client_info()["resp"]), "3", "the connection")


@feature("TLS")
def tls():
    secure = redis.Redis(host="localhost", port=int(tls_port), ssl=True, ssl_ca_certs=ca, ssl_check_hostname=True, socket_timeout=10)
    same(secure.ping(), True, "PING")


print(json.dumps({"version": redis.__version__, "results": results}))
