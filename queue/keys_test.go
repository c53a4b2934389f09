package queue

import (
	"strings"
	"testing"

	"github.com/flatrate/flatrate/internal/key/keytable"
	"github.com/flatrate/flatrate/internal/script"
)

func TestKeyTable(t *testing.T) {
	keys, err := newKeySpace("")
	if err != nil {
		t.Fatal(err)
	}
	table := []string{keys.names()}
	for _, part := range []string{
		"meta", "gone", "ready", "g:GROUP", "groups", "heads", "locked", "held", "msg", "flight", "delay", "dead", "why", "moved",
		"dedup", "dedupq", "unique", "cron", "lead", "tries", "triesq", "rates", "wait",
	} {
		// The number of the partition stands where N does.
		table = append(table, strings.Replace(keys.part("NAME", 0, part), ":0}", ":N}", 1))
	}
	logs, err := newLogSpace("")
	if err != nil {
		t.Fatal(err)
	}
	table = append(table, logs.names(), "fr:list:{NAME}")
	for _, part := range []string{
		"meta", "gone", "log", "groups", "own:GROUP", "members:GROUP", "side:GROUP", "try:GROUP", "due:GROUP", "dead:GROUP", "wait",
	} {
		table = append(table, strings.Replace(logs.part("NAME", 0, part), ":0}", ":N}", 1))
	}
	keytable.Check(t, table...)
	if got := strings.Join(keys.of("a {1}", 2), " "); got != "fr:queue:{a%20%7B1%7D:2}:meta fr:queue:{a%20%7B1%7D:2}:gone" {
		t.Errorf("the layout is a public contract: %s", got)
	}
}

func TestScripts(t *testing.T) {
	for name, source := range map[string]string{
		"send": sendLua, "receive": receiveLua, "fifo": fifoLua, "settle": settleLua, "declare": declareLua, "control": controlLua,
		"stats": statsLua, "peek": peekLua, "dying": dyingLua, "buried": buriedLua, "listpush": listPushLua,
		"logdeclare": logDeclareLua, "logappend": logAppendLua, "logtrim": logTrimLua, "loggroup": logGroupLua, "logjoin": logJoinLua, "logtake": logTakeLua,
		"logread": logReadLua, "logclaim": logClaimLua, "logaside": logAsideLua, "logmark": logMarkLua, "logack": logAckLua, "lognack": logNackLua,
		"logdead": logDeadLua, "logstats": logStatsLua, "logdelete": logDeleteLua,
	} {
		if err := script.Check(source); err != nil {
			t.Errorf("%s.lua: %v", name, err)
		}
	}
}
