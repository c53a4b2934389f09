package main

import (
	"context"
	"fmt"
	"math"
	"time"
)

// plan says how long to measure.
type plan struct {
	rounds int           // that count; one more warms up
	round  time.Duration // of each contender in each round, at most
	total  time.Duration // of all rounds of an area, so that --quick ends in time
}

var (
	thorough = plan{rounds: 9, round: time.Second, total: time.Hour}
	quick    = plan{rounds: 5, round: 300 * time.Millisecond, total: 30 * time.Second}
)

// each is the time of one contender in one round.
func (p plan) each(rows []Row) time.Duration {
	contenders := 0
	for _, row := range rows {
		contenders += 1 + len(row.Peers)
	}
	return min(p.round, p.total/time.Duration(max(1, contenders*(p.rounds+1))))
}

// measure runs the rows of an area one after the other and hands over each figure as it is done.
func measure(ctx context.Context, area string, rows []Row, p plan, report func(Figure)) error {
	d := p.each(rows)
	for _, row := range rows {
		ours, theirs, err := alternate(ctx, row, p.rounds, d)
		if err != nil {
			return fmt.Errorf("%s %s: %w", area, row.Name, err)
		}
		figure := Figure{Area: area, Row: row.Name, Versus: "-", Ratio: number(math.NaN()),
			Value: median(ours), Unit: row.Unit, Better: row.Better}
		if len(row.Peers) == 0 {
			figure.Spread = spread(ours)
			report(figure)
		}
		for i, peer := range row.Peers {
			ratios := divide(ours, theirs[i])
			figure.Versus, figure.Ratio, figure.Spread = peer.Name, number(median(ratios)), spread(ratios)
			report(figure)
		}
	}
	return nil
}

// alternate gives each contender a turn in each round. Every other round has the reverse order, so that
// nobody always comes after the same one.
func alternate(ctx context.Context, row Row, rounds int, d time.Duration) (ours []float64, theirs [][]float64, err error) {
	contenders := append([]Peer{{"flatrate", row.Ours}}, row.Peers...)
	values := make([][]float64, len(contenders))
	for round := range rounds + 1 {
		for i := range contenders {
			if round%2 == 1 {
				i = len(contenders) - 1 - i
			}
			if err := ctx.Err(); err != nil {
				return nil, nil, err
			}
			value, err := contenders[i].Round(ctx, d)
			if err == nil && (math.IsNaN(value) || math.IsInf(value, 0)) {
				err = fmt.Errorf("a round returned %v", value)
			}
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", contenders[i].Name, err)
			}
			if round > 0 {
				values[i] = append(values[i], value)
			}
		}
	}
	return values[0], values[1:], nil
}
