package lock_test

import (
	"strings"
	"testing"

	"github.com/flatrate/flatrate/lock"
	"github.com/flatrate/flatrate/valkeytest"
)

func TestNewSemaphoreNamesTheField(t *testing.T) {
	c := valkeytest.Start(t).Client()
	for _, test := range []struct {
		cfg  lock.SemaphoreConfig
		want string
	}{
		{lock.SemaphoreConfig{}, "SemaphoreConfig.Limit"},
		{lock.SemaphoreConfig{Limit: -1}, "SemaphoreConfig.Limit"},
		{lock.SemaphoreConfig{Limit: 1 << 31}, "SemaphoreConfig.Limit"},
		{lock.SemaphoreConfig{Limit: 1, TTL: -1}, "SemaphoreConfig.TTL"},
		{lock.SemaphoreConfig{Limit: 1, MaxHold: -1}, "SemaphoreConfig.MaxHold"},
		{lock.SemaphoreConfig{Limit: 1, Replicas: -1}, "SemaphoreConfig.Replicas"},
		{lock.SemaphoreConfig{Limit: 1, Prefix: "a b"}, "SemaphoreConfig.Prefix"},
	} {
		if _, err := lock.NewSemaphore(c, test.cfg); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: error %v, want one with %s", test.cfg, err, test.want)
		}
	}
	if _, err := lock.NewSemaphore(nil, lock.SemaphoreConfig{Limit: 1}); err == nil {
		t.Error("a nil client was accepted")
	}
}
