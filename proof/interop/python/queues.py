"""What the tests run: python3 queues.py vectors|calls|send|wake SOCKET [ROUNDS]. It prints one line of JSON."""
import base64
import json
import pathlib
import sys

import redis

root = pathlib.Path(__file__).resolve().parents[3]
recipes = root / "docs" / "recipes" / "queue"
sys.path.insert(0, str(recipes))
sys.dont_write_bytecode = True
from recipe import FullError, Message, Producer, QueueError, keys, partition_of  # noqa: E402

client = redis.Redis(unix_socket_path=sys.argv[2], socket_timeout=10)
wrong = []


def plain(reply):
    """A reply as JSON has it."""
    if isinstance(reply, list):
        return [plain(one) for one in reply]
    return reply.decode() if isinstance(reply, bytes) else reply


def vectors():
    v, steps = json.loads((recipes / "vectors.json").read_text()), 0
    declare = (root / "queue" / "declare.lua").read_bytes()
    raw = redis.connection.UnixDomainSocketConnection(path=sys.argv[2])

    def command(*args):  # as the server answers, whatever the client makes of it
        raw.send_command(*args)
        return plain(raw.read_response())

    for k in v["keys"]:
        if plain(keys("fr", k["name"], k["partition"])) != k["keys"]:
            wrong.append("%r: %r" % (k["name"], keys("fr", k["name"], k["partition"])))
    for p in v["places"]:
        if partition_of(p["where"].encode(), p["parts"]) != p["partition"]:
            wrong.append("%r" % p)
    for q in v["queues"]:

        def check(steps):
            for step in steps:
                got = command(*step["command"])
                if got != step["reply"]:
                    wrong.append("%s: %r: %r" % (q["says"], step["command"], got))

        client.flushall()
        for i in range(q["parts"]):
            client.eval(declare, 2, *keys("fr", q["name"], i), *q["declare"])
        check(q.get("before", []))
        producer = Producer(client, q["name"])
        for s in q["steps"]:
            args = []
            for m in s["messages"]:
                options = {k: m[k] for k in ("attributes", "group", "dedup_id", "delay", "unique", "unique_for") if k in m}
                body = base64.b64decode(m["body_base64"]) if "body_base64" in m else m["body"]
                got = Message(m["id"], q["fifo"], q["parts"], 1 << 20, body, **options)
                want = base64.b64decode(m["arg_base64"]) if "arg_base64" in m else m["arg"].encode()
                if got.arg != want:
                    wrong.append("%s, %s: %r" % (q["says"], m["id"], got.arg))
                if got.where and partition_of(got.where, q["parts"]) != s["partition"]:
                    wrong.append("%s, %s: %r" % (q["says"], m["id"], got.where))
                args.append(got.arg)
            got = plain(producer.run(s["partition"], args, s["now"]))
            if got != s["reply"]:
                wrong.append("%s, step %d: %r" % (q["says"], steps, got))
            steps += 1
        check(q["after"])
    return {"keys": len(v["keys"]), "steps": steps}


def send():
    """Sends numbers in groups, each twice: the second one is a duplicate."""
    producer, rounds = Producer(client, "shared"), int(sys.argv[3])
    for i in range(rounds):
        batch = [{"body": "python %d %d" % (g, i), "group": "g%d" % g, "dedup_id": "python %d %d" % (g, i), "attributes": {"from": "python"}} for g in range(4)]
        sent = [producer.send(**batch[0]), *producer.send_batch(batch[1:])]
        again = [*producer.send_batch(batch[:3]), producer.send(**batch[3])]
        for one, two in zip(sent, again):
            if one.error or one.duplicate or not one.sequence > 0 or not two.duplicate or two.id != one.id:
                wrong.append("%r %r" % (one, two))
    return {"turns": 4 * rounds}


def wake():
    sent = Producer(client, "waited").send(b"\x00\xff")
    return {"turns": 0 if sent.duplicate else 1}


def calls():
    """Goes through what the others leave out."""
    small = Producer(client, "small")  # room for two messages
    full = small.send_batch([{"body": "1"}, {"body": "2"}, {"body": "3"}])
    if full[1].error or not full[0].id or not isinstance(full[2].error, FullError):
        wrong.append("%r" % full)
    many = Producer(client, "many", max_body=400_000)  # standard, three partitions
    large = many.send_batch([{"body": str(i)} for i in range(300)] + [{"body": b"x" * 400_000}] * 5)
    if len({s.id for s in large}) != 305 or any(s.error or s.duplicate or s.sequence for s in large):
        wrong.append("many")
    deleted, fifo = Producer(client, "deleted"), Producer(client, "fifo")
    deleted._fifo, deleted._parts, deleted._waiting = False, 1, [0]
    for i, (kind, call) in enumerate((
        (FullError, lambda: small.send("4")), (QueueError, lambda: Producer(client, "missing").send("x")), (QueueError, lambda: deleted.send("x")),
        (QueueError, lambda: fifo.send("x")), (QueueError, lambda: fifo.send("x", group="g", delay=5)),
        (TypeError, lambda: many.send()), (TypeError, lambda: many.send(None)), (TypeError, lambda: many.send("x", dedupId="d")),
        (UnicodeEncodeError, lambda: many.send("\ud800")), (ValueError, lambda: many.send("x" * 400_001)),
        (ValueError, lambda: many.send("x", group="x" * 129)), (ValueError, lambda: many.send("x", attributes={"fr.x": "1"})),
        (ValueError, lambda: many.send("x", attributes={"": "1"})), (ValueError, lambda: many.send("x", attributes={"a%d" % n: "" for n in range(101)})),
        (ValueError, lambda: many.send("x", delay=1.5)), (ValueError, lambda: many.send("x", delay=-1)), (ValueError, lambda: many.send("x", unique_for=5)),
        (ValueError, lambda: Producer(client, "x", prefix="a{b")), (ValueError, lambda: Producer(client, "")), (ValueError, lambda: Producer(client, "x" * 257)),
    )):
        try:
            call()
            wrong.append("accepted bad argument %d" % i)
        except kind:
            pass
        except Exception as err:
            wrong.append("bad argument %d: %r" % (i, err))
    client.script_flush()
    many.send("x")  # sends the script again
    client.config_set("maxmemory", 1)
    try:
        many.send("x")
        wrong.append("taken by a full server")
    except redis.ResponseError:
        pass
    return {}


print(json.dumps({**globals()[sys.argv[1]](), "wrong": wrong}))
