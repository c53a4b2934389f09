// Command bench measures flatrate beside its peers, in the same run and on the same server.
//
//	cd proof && go run ./bench AREA [--quick] [--output json]
//
// docs/bench.md says how to read the figures and how to add an area.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/flatrate/flatrate/proof/crowd"
)

func main() {
	crowd.Main()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := bench(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is the whole command. A target that is missed is no error.
func bench(ctx context.Context, args []string, out, notes io.Writer) error {
	area, rough, output, err := parse(args)
	if err != nil {
		return err
	}
	targets, err := readTargets(targetsCSV)
	if err != nil {
		return err
	}
	write := (&table{w: out, targets: targets}).write
	if output == "json" {
		lines := json.NewEncoder(out)
		write = func(f Figure) { _ = lines.Encode(f) }
	}
	how := thorough
	if rough {
		how = quick
	}
	b := &B{Quick: rough}
	seen := map[rowKey]bool{}
	err = b.run(func() error {
		return measure(ctx, area.Name, area.Rows(ctx, b), how, func(f Figure) {
			owed, ok := targets[f.key()]
			if ok && owed.better != f.Better {
				b.Fatalf("%s %s: %s is better, but targets.csv says %s", f.Area, f.Row, f.Better, owed.better)
			}
			seen[f.key()] = true
			write(f)
		})
	})
	if err != nil {
		return err
	}
	for key := range targets {
		if key.area == area.Name && !seen[key] {
			fmt.Fprintf(notes, "bench: targets.csv has %s versus %s, which was not measured\n", key.row, key.versus)
		}
	}
	return nil
}

// parse reads the arguments; flags may stand before and after the area.
func parse(args []string) (area Area, rough bool, output string, err error) {
	var names []string
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.BoolVar(&rough, "quick", false, "")
	flags.StringVar(&output, "output", "table", "")
	for len(args) > 0 {
		if err := flags.Parse(args); err != nil {
			return area, rough, output, fmt.Errorf("%w; %w", err, usage())
		}
		if args = flags.Args(); len(args) > 0 {
			names, args = append(names, args[0]), args[1:]
		}
	}
	if output != "table" && output != "json" || len(names) != 1 {
		return area, rough, output, usage()
	}
	area, ok := find(names[0])
	if !ok {
		return area, rough, output, fmt.Errorf("no area %q; %w", names[0], usage())
	}
	return area, rough, output, nil
}

func find(name string) (Area, bool) {
	for _, area := range areas {
		if area.Name == name {
			return area, true
		}
	}
	return Area{}, false
}

func usage() error {
	var names []string
	for _, area := range areas {
		names = append(names, area.Name)
	}
	return fmt.Errorf("usage: bench AREA [--quick] [--output table|json]; areas: %s", strings.Join(names, ", "))
}
