package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/flatrate/flatrate"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/redis/go-redis/v9"
	"github.com/valkey-io/valkey-go"
)

// connectArea is the client that flatrate.Connect makes: GET of 100 B over TCP on loopback.
func connectArea() Area {
	return Area{Name: "connect", Rows: connectRows}
}

const (
	benchKey  = "bench"
	benchSize = 100
)

// getter is one client's GET.
type getter struct {
	name string
	get  func(ctx context.Context, caller int) error
}

func connectRows(ctx context.Context, b *B) []Row {
	server := valkeytest.StartWith(b, valkeytest.Config{TCP: true})
	admin := server.Client()
	b.Must(admin.Do(ctx, admin.B().Set().Key(benchKey).Value(strings.Repeat("x", benchSize)).Build()).Error())

	ours, err := flatrate.Connect(ctx, "valkey://"+server.Addr)
	b.Must(err)
	b.Cleanup(ours.Close)
	defaults, err := valkey.NewClient(valkey.ClientOption{InitAddress: []string{server.Addr}})
	b.Must(err)
	b.Cleanup(defaults.Close)
	goRedis := redis.NewClient(&redis.Options{Addr: server.Addr})
	b.Cleanup(func() { _ = goRedis.Close() })
	piped, err := redis.NewClient(&redis.Options{Addr: server.Addr}).AutoPipeline()
	b.Must(err)
	b.Cleanup(func() { _ = piped.Close() })

	flat := getter{"flatrate", valkeyGet(ours)}
	peers := []getter{
		{"valkey-go defaults", valkeyGet(defaults)},
		{"go-redis", func(ctx context.Context, _ int) error { return goRedis.Get(ctx, benchKey).Err() }},
		{"go-redis auto-pipelined", func(ctx context.Context, _ int) error { return piped.Get(ctx, benchKey).Err() }},
	}
	var rows []Row
	for _, callers := range []int{1, 8, 64, 512} {
		row := Row{Name: fmt.Sprintf("get-%d", callers), Unit: "ops/s", Better: "higher", Ours: Throughput(callers, flat.get)}
		for _, peer := range peers {
			row.Peers = append(row.Peers, Peer{peer.name, Throughput(callers, peer.get)})
		}
		rows = append(rows, row)
	}
	cpu := Row{Name: "get-64-server-cpu", Unit: "us", Better: "lower", Ours: serverCPU(admin, 64, flat.get)}
	for _, peer := range peers {
		cpu.Peers = append(cpu.Peers, Peer{peer.name, serverCPU(admin, 64, peer.get)})
	}
	return append(rows, cpu)
}

func valkeyGet(client valkey.Client) func(context.Context, int) error {
	return func(ctx context.Context, _ int) error {
		return client.Do(ctx, client.B().Get().Key(benchKey).Build()).Error()
	}
}

// serverCPU is a round that returns the server's time for one op, in microseconds.
func serverCPU(admin valkey.Client, callers int, op func(context.Context, int) error) Round {
	return func(ctx context.Context, d time.Duration) (float64, error) {
		before, err := cpuSeconds(ctx, admin)
		if err != nil {
			return 0, err
		}
		n, _, err := drive(ctx, callers, d, op)
		if err != nil {
			return 0, err
		}
		after, err := cpuSeconds(ctx, admin)
		return (after - before) * 1e6 / float64(max(1, n)), err
	}
}

// cpuSeconds is what the server's process has used so far.
func cpuSeconds(ctx context.Context, admin valkey.Client) (sum float64, err error) {
	text, err := admin.Do(ctx, admin.B().Info().Section("cpu").Build()).ToString()
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "used_cpu_sys" || name == "used_cpu_user" {
			seconds, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return 0, fmt.Errorf("INFO cpu: %w", err)
			}
			sum += seconds
		}
	}
	return sum, nil
}
