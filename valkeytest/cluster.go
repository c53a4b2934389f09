package valkeytest

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valkey-io/valkey-go"
)

const slots = 16384

// Nodes is a cluster of primaries that share the slots evenly.
type Nodes struct {
	// Servers are the nodes; Servers[i] owns the i-th part of the slots.
	Servers []*Server

	tb     testing.TB
	client func() valkey.Client
}

// Cluster starts a cluster of n valkey-servers that ends with the test. One node owns all slots and
// catches most cross-slot bugs; three show redirects. It takes about two seconds.
func Cluster(tb testing.TB, n int) *Nodes {
	tb.Helper()
	return ClusterWith(tb, n, Config{})
}

// ClusterWith starts a cluster whose nodes are as cfg says. TLS is not supported here.
func ClusterWith(tb testing.TB, n int, cfg Config) *Nodes {
	tb.Helper()
	if n < 1 || cfg.TLS {
		tb.Fatalf("valkeytest: a cluster of %d nodes, TLS %v", n, cfg.TLS)
	}
	cfg.TCP = true
	base := cfg.Args
	c := &Nodes{tb: tb}
	c.client = sync.OnceValue(c.newClient)
	for range n {
		cfg.Args = append([]string{
			"--cluster-enabled", "yes",
			"--cluster-port", strconv.Itoa(FreePort(tb)),
			"--cluster-node-timeout", "2000",
		}, base...)
		c.Servers = append(c.Servers, StartWith(tb, cfg))
	}
	c.join()
	return c
}

// Client returns a cluster client, made at the first call and closed with the test.
func (c *Nodes) Client() valkey.Client { return c.client() }

// Addrs are the host:port of all nodes.
func (c *Nodes) Addrs() []string {
	addrs := make([]string, len(c.Servers))
	for i, s := range c.Servers {
		addrs[i] = s.Addr
	}
	return addrs
}

// join hands out the slots, introduces the nodes and waits until each calls the cluster whole.
func (c *Nodes) join() {
	c.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	must := func(client valkey.Client, words ...string) {
		c.tb.Helper()
		if err := client.Do(ctx, client.B().Arbitrary(words...).Build()).Error(); err != nil {
			c.tb.Fatalf("valkeytest: %s: %v", strings.Join(words, " "), err)
		}
	}
	n := len(c.Servers)
	for i, s := range c.Servers {
		first, last := i*slots/n, (i+1)*slots/n-1
		must(s.Client(), "CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(first), strconv.Itoa(last))
		for _, other := range c.Servers[:i] {
			host, port, err := net.SplitHostPort(other.Addr)
			if err != nil {
				c.tb.Fatalf("valkeytest: %v", err)
			}
			must(s.Client(), "CLUSTER", "MEET", host, port, other.busPort())
		}
	}
	for _, s := range c.Servers {
		for !s.whole(ctx, n) {
			select {
			case <-ctx.Done():
				c.tb.Fatalf("valkeytest: the cluster was not whole within %v:\n%s", startTimeout, s.log())
			case <-time.After(pollEvery):
			}
		}
	}
}

func (s *Server) busPort() string {
	for i, arg := range s.args {
		if arg == "--cluster-port" {
			return s.args[i+1]
		}
	}
	return ""
}

func (s *Server) whole(ctx context.Context, nodes int) bool {
	c := s.Client()
	info, err := c.Do(ctx, c.B().ClusterInfo().Build()).ToString()
	return err == nil && strings.Contains(info, "cluster_state:ok") &&
		strings.Contains(info, fmt.Sprintf("cluster_size:%d\r", nodes)) &&
		strings.Contains(info, fmt.Sprintf("cluster_slots_ok:%d\r", slots))
}

func (c *Nodes) newClient() valkey.Client {
	c.tb.Helper()
	client, err := valkey.NewClient(valkey.ClientOption{
		InitAddress: c.Addrs(),
		Password:    c.Servers[0].cfg.Password,
	})
	if err != nil {
		c.tb.Fatalf("valkeytest: connect to the cluster: %v", err)
	}
	c.tb.Cleanup(client.Close)
	return client
}
