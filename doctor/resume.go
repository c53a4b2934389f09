package doctor

import "fmt"

// checkpoint is what stands before the tally in a state.
type checkpoint struct {
	Nodes   map[string]string
	Runs    map[string]string // node: its run_id, since a restart gives its table another order; empty where INFO is refused
	Quantum int64
	Decided bool
	Config  string // what must be the same
}

// sameConfig is what a scan that goes on must have in common with the one that was interrupted.
func (c Config) sameConfig() string {
	return fmt.Sprintf("Prefixes %q, Top %d, KeySamples %d", c.Prefixes, c.Top, c.KeySamples)
}

// resume goes on from a checkpoint, if it is of these servers.
func (s *scan) resume() error {
	var at checkpoint
	t, err := resumeTally(s.cfg.Resume, &at, s.cfg)
	if err != nil {
		return err
	}
	if at.Nodes == nil || at.Quantum != 8 && at.Quantum != 16 {
		return fmt.Errorf("%w: Resume: it is damaged", ErrConfig)
	}
	if want := s.cfg.sameConfig(); at.Config != want {
		return fmt.Errorf("%w: Resume: it was made with %s, not with %s", ErrConfig, at.Config, want)
	}
	runs := s.runs()
	for addr := range at.Nodes {
		run, ok := runs[addr]
		if !ok {
			return fmt.Errorf("%w: Resume: it is of another server: %s is not a node of this one", ErrConfig, addr)
		}
		if run != at.Runs[addr] {
			return fmt.Errorf("%w: Resume: %s was started again since, and its keys stand in another order: begin anew, without it", ErrConfig, addr)
		}
	}
	s.tally, s.ends, s.decided, s.model.quantum = t, at.Nodes, at.Decided, at.Quantum
	return nil
}

// runs are the nodes, and the run_id of each.
func (s *scan) runs() map[string]string {
	m := map[string]string{}
	for _, h := range s.before {
		m[h.addr] = h.info["run_id"]
	}
	return m
}

// restarted names a node that was started again since the scan began.
func (s *scan) restarted(after []health) string {
	before := s.runs()
	for _, h := range after {
		if h.info["run_id"] != before[h.addr] {
			return h.addr
		}
	}
	return ""
}
