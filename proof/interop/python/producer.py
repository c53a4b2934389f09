"""What the tests run: producer.py vectors | send SOCKET NAME N. It prints one line of JSON."""
import base64
import json
import pathlib
import sys

import redis

root = pathlib.Path(__file__).resolve().parents[3]
sys.dont_write_bytecode = True
sys.path.insert(0, str(root / "docs/recipes/queue"))
import recipe  # noqa: E402

wrong, count = [], 0


def check(what, got, want):
    global count
    count += 1
    if got != want:
        wrong.append("%s: %r, want %r" % (what, got, want))


if sys.argv[1] == "vectors":
    v = json.loads((root / "docs/recipes/queue/vectors.json").read_text())
    for k in v["keys"]:
        check(k["name"], [x.decode() for x in recipe.Producer(None, k["name"]).keys(k["partition"])], k["keys"])
    for p in v["partitions"]:
        check(p["key"], recipe.partition(p["key"].encode(), p["parts"]), p["partition"])
    for m in v["messages"]:
        got = recipe.argument(
            m["id"], base64.b64decode(m["body"]), fifo=m["fifo"], parts=m["parts"], attributes=m.get("attributes"), group=m["group"],
            dedup=m["dedup"], delay=m["delay"], unique=m["unique"], unique_for=m["uniqueFor"])
        check(m["id"], got, base64.b64decode(m["argument"]))
else:
    producer = recipe.Producer(redis.Redis(unix_socket_path=sys.argv[2], socket_timeout=10), sys.argv[3])
    for i in range(int(sys.argv[4])):
        sent = producer.send(b"python %d" % i, group="python", dedup="python %d" % i, attributes={"n": str(i)})
        check("sent", (len(sent["id"]), sent["duplicate"]), (22, False))
        again = producer.send(b"again", group="python", dedup="python %d" % i)
        check("again", (again["id"], again["duplicate"]), (sent["id"], True))
    try:
        producer.send(b"x" * 300_000, group="python")
        wrong.append("a body over the limit")
    except ValueError:
        pass
    try:
        recipe.Producer(redis.Redis(unix_socket_path=sys.argv[2]), "nothere").send(b"")
        wrong.append("a queue that is not there")
    except recipe.NoQueue:
        pass
print(json.dumps({"Steps": count, "Wrong": wrong}))
