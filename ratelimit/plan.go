package ratelimit

import (
	"fmt"
	"slices"
	"time"
)

const (
	maxLimits       = 16
	maxTimeout      = time.Minute
	defaultBatchFor = time.Second
)

// compileAll checks cfg and fills in its defaults. Its error begins with the field's name.
func compileAll(cfg *Config) ([]rule, error) {
	if len(cfg.Limits) < 1 || len(cfg.Limits) > maxLimits {
		return nil, fmt.Errorf("Config.Limits has %d limits, not 1 to %d", len(cfg.Limits), maxLimits)
	}
	cfg.Limits = slices.Clone(cfg.Limits)
	rules := make([]rule, len(cfg.Limits))
	names := map[string]int{}
	places := false
	for i, limit := range cfg.Limits {
		r, err := compile(limit)
		if err != nil {
			return nil, fmt.Errorf("Config.Limits[%d].%w", i, err)
		}
		if limit.Algorithm == Concurrency {
			if places {
				return nil, fmt.Errorf("Config.Limits[%d].Algorithm is a second Concurrency", i)
			}
			places = true
		}
		if r.Outage == OutageError {
			r.Outage = cfg.Outage
		}
		names[r.Name]++
		if n := names[r.Name]; n > 1 {
			if limit.Name != "" {
				return nil, fmt.Errorf("Config.Limits[%d].Name is %q again", i, limit.Name)
			}
			r.Name = fmt.Sprintf("%s-%d", r.Name, n)
			names[r.Name]++
		}
		rules[i] = r
	}
	return rules, compileRest(cfg, rules, places)
}

func compileRest(cfg *Config, rules []rule, places bool) error {
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.BatchFor == 0 {
		cfg.BatchFor = defaultBatchFor
	}
	local := slices.ContainsFunc(rules, func(r rule) bool { return r.Outage == OutageLocal })
	switch {
	case cfg.Timeout < time.Millisecond || cfg.Timeout > maxTimeout:
		return fmt.Errorf("Config.Timeout is %v, not from 1ms to %v", cfg.Timeout, maxTimeout)
	case cfg.Outage > OutageLocal:
		return fmt.Errorf("Config.Outage is %d, which is none", cfg.Outage)
	case cfg.Processes < 0, cfg.Processes == 0 && local:
		return fmt.Errorf("Config.Processes is %d: OutageLocal needs to know how many share the limits", cfg.Processes)
	case cfg.Batch < 0 || cfg.Batch > MaxLimit:
		return fmt.Errorf("Config.Batch is %d, not from 0 to %d", cfg.Batch, int64(MaxLimit))
	case cfg.Batch > 0 && places:
		return fmt.Errorf("Config.Batch is %d: places of a Concurrency limit can't be taken in advance", cfg.Batch)
	case cfg.BatchFor < time.Millisecond || cfg.BatchFor > maxTimeout:
		return fmt.Errorf("Config.BatchFor is %v, not from 1ms to %v", cfg.BatchFor, maxTimeout)
	case cfg.RememberDenied < 0:
		return fmt.Errorf("Config.RememberDenied is %v, less than zero", cfg.RememberDenied)
	case cfg.RememberDenied > 0 && places:
		return fmt.Errorf("Config.RememberDenied is %v: a place of a Concurrency limit may be free at any time", cfg.RememberDenied)
	}
	return nil
}
