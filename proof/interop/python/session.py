"""What TestSessionRecipes runs: python3 session.py vectors|share SOCKET [TOKEN]. It prints one line of JSON."""
import json
import os
import sys

import redis

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..")
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(ROOT, "docs", "recipes", "session"))
import recipe  # noqa: E402

what, socket = sys.argv[1], sys.argv[2]
client = redis.Redis(unix_socket_path=socket, socket_timeout=10)
wrong = []


def same(name, got, want):
    if got != want:
        wrong.append(f"{name}: {got!r}, want {want!r}")


def vectors():
    with open(os.path.join(ROOT, "docs", "recipes", "session", "vectors.json"), encoding="utf-8") as f:
        v = json.load(f)
    for k in v["tokens"]:
        at = recipe.place(k["token"])
        same(k["token"], at and recipe.keys("fr", at), k["keys"])
    for u in v["users"]:
        same(u["user"], recipe.user_tag(u["user"]), u["tag"])
    for r in v["records"]:
        try:
            got = recipe.parse(r["record"])
            got = got and {k: getattr(got, k) for k in ("moved", "seen", "created", "idle", "absolute", "value")}
        except ValueError:
            got = "wrong"
        want = {k: r[k] for k in ("moved", "seen", "created", "idle", "absolute", "value")} if "value" in r else None
        same(r["record"], got, "wrong" if r.get("wrong") else want)
    run = recipe.Sessions(client).run
    for s in v["saves"]:
        client.set("fr:sess:{AAAA}:x", s["record"])
        same(s["says"], run("save", ["fr:sess:{AAAA}:x"], *s["args"]), s["reply"])
        same(s["says"], client.get("fr:sess:{AAAA}:x").decode().partition("\n")[2], s["body"])
    return {"keys": len(v["tokens"]), "steps": len(v["saves"]), "wrong": wrong}


def share():
    sessions = recipe.Sessions(client)
    theirs = sessions.get(sys.argv[3])
    same("what Go wrote", theirs and theirs.value, {"user": "ann", "cart": {"pear": 2}, "note": 'é <&> "\n'})
    theirs.value["theme"] = "dark"
    del theirs.value["cart"]
    same("a change of it", theirs.save(), True)
    ended = sessions.create({"n": 1})
    ended.end()
    ended.value["n"] = 2
    same("a change of one that was ended", (ended.save(), sessions.get(ended.token)), (False, None))
    mine = sessions.create({"user": "bob", "cart": {"fig": 1}}, user="bob")
    mine.value["cart"]["fig"] = 2
    same("a change of its own", mine.save(), True)
    return {"token": mine.token, "wrong": wrong}


print(json.dumps({"vectors": vectors, "share": share}[what]()))
