package session_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/session"
	"github.com/flatrate/flatrate/valkeytest"
)

// expressCookie signs an id as express-session does.
func expressCookie(id, secret string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(id))
	return url.QueryEscape("s:" + id + "." + base64.RawStdEncoding.EncodeToString(mac.Sum(nil)))
}

// TestConnectRedis takes sessions over as they lie there. One of the library itself is in proof/interop.
func TestConnectRedis(t *testing.T) {
	c := valkeytest.Start(t).Client()
	m, err := session.New[profile](c, session.Config{ForeignTokens: true, Timeout: patient})
	if err != nil {
		t.Fatal(err)
	}
	old, err := session.FromConnectRedis[profile](session.ConnectRedis{Client: c, Secrets: []string{"new", "old"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.TakeOver(old); err != nil {
		t.Fatal(err)
	}
	set := func(id, text string) {
		t.Helper()
		if err := c.Do(t.Context(), c.B().Set().Key("sess:"+id).Value(text).Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	const cookie = `"cookie":{"originalMaxAge":60000,"expires":"2030-01-01T00:00:00.000Z","httpOnly":true,"path":"/"}`
	set("one", `{`+cookie+`,"user":"ann", "cart": {"pear": 2},"@odd":1,"a\"b":2,"passport":{"user":7}}`)
	set("two", `{`+cookie+`,"user":"bob"}`)
	token := expressCookie("one", "old")
	s, ok, err := m.Get(t.Context(), token)
	if err != nil || !ok || s.Value.User != "ann" || s.Value.Cart["pear"] != 2 || s.Idle != time.Minute {
		t.Fatalf("%+v, %v, %v", s, ok, err)
	}
	set("one", `{`+cookie+`,"user":"stale"}`)
	if s, ok, err = m.Get(t.Context(), token); err != nil || !ok || s.Value.User != "ann" {
		t.Errorf("%+v, %v, %v", s, ok, err)
	}
	if err := m.Delete(t.Context(), expressCookie("two", "new")); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Do(t.Context(), c.B().Exists().Key("sess:two").Build()).AsInt64(); err != nil || n != 0 {
		t.Errorf("the old session is left: %d, %v", n, err)
	}
	for _, bad := range []string{
		expressCookie("one", "stolen"), expressCookie("none", "new"), expressCookie("two", "new"), "s%3Aone." + strings.Repeat("A", 43), "one" + strings.Repeat("x", 20),
		"s%3A.aaaaaaaaaaaaaaaaaaaaa", "%zz" + strings.Repeat("x", 20), strings.TrimPrefix(token, "s"),
	} {
		if s, ok, err := m.Get(t.Context(), bad); err != nil || ok {
			t.Errorf("%s: %+v, %v, %v", bad, s, ok, err)
		}
	}
	for i, text := range []string{"", "null", "[]", `{"user":"x"}`, `{"cookie":1}`, `{` + cookie + `,"user":1}`} {
		id := "bad" + strings.Repeat("x", i)
		set(id, text)
		if s, ok, err := m.Get(t.Context(), expressCookie(id, "new")); err == nil || ok {
			t.Errorf("%q: %+v, %v, %v", text, s, ok, err)
		}
	}
	for want, from := range map[string]session.ConnectRedis{
		"Client": {Secrets: []string{"x"}}, "Secrets is": {Client: c}, "Secrets[1]": {Client: c, Secrets: []string{"x", ""}},
	} {
		if _, err := session.FromConnectRedis[profile](from); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
