// Package crowd makes many processes want the same key of a cache at the same time.
//
// A crowd's members are the program itself, started again: it calls [Main] first.
package crowd

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/flatrate/flatrate"
	"github.com/flatrate/flatrate/cache"
)

const variable = "FLATRATE_CROWD"

// Setting says what each member does.
type Setting struct {
	// URL of the server, as flatrate.Connect takes it.
	URL string
	// Callers is how many goroutines of each member ask at once.
	Callers int
	// Load is how long a load takes.
	Load time.Duration
	// TTL and Lease are those of the cache; zero means its defaults.
	TTL, Lease time.Duration
}

// event is what a member tells.
type event struct {
	Kind  string  `json:"kind"` // "ready", "load", "done"
	Took  []int64 `json:"took,omitempty"`
	Wrong int     `json:"wrong,omitempty"`
	Error string  `json:"error,omitempty"`
}

// Crowd is running members.
type Crowd struct {
	members []*member
	loads   chan int // which member began a load
}

type member struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	done chan event
	gone chan struct{}

	killed bool
}

// Result is what a round came to.
type Result struct {
	// Loads is how many loads there were.
	Loads int
	// Took is how long each caller waited for its answer.
	Took []time.Duration
	// Wrong is how many answers were not what was loaded.
	Wrong int
}

// Start starts n members, which end with Close.
func Start(ctx context.Context, n int, setting Setting) (*Crowd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(setting)
	if err != nil {
		return nil, err
	}
	c := &Crowd{loads: make(chan int, 1000)}
	for i := range n {
		cmd := exec.CommandContext(ctx, self) //nolint:gosec // it is this program
		cmd.Env = append(os.Environ(), variable+"="+string(text))
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			return nil, err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		m := &member{cmd: cmd, in: in, done: make(chan event, 1), gone: make(chan struct{})}
		c.members = append(c.members, m)
		go c.read(i, m, out)
	}
	for _, m := range c.members {
		if _, err := m.wait(); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

func (c *Crowd) read(i int, m *member, out io.Reader) {
	defer close(m.gone)
	lines := json.NewDecoder(out)
	for {
		var e event
		if lines.Decode(&e) != nil {
			return
		}
		if e.Kind == "load" {
			c.loads <- i
			continue
		}
		m.done <- e
	}
}

func (m *member) wait() (event, error) {
	select {
	case e := <-m.done:
		if e.Error != "" {
			return e, errors.New(e.Error)
		}
		return e, nil
	case <-m.gone:
		return event{}, errors.New("a member of the crowd has ended")
	case <-time.After(2 * time.Minute):
		return event{}, errors.New("a member of the crowd does not answer")
	}
}

// left are the members that nobody has killed.
func (c *Crowd) left() (members []*member) {
	for _, m := range c.members {
		if !m.killed {
			members = append(members, m)
		}
	}
	return members
}

// Ask lets all members ask for a key at once.
func (c *Crowd) Ask(key string) error {
	for _, m := range c.left() {
		if _, err := fmt.Fprintf(m.in, "%q\n", key); err != nil {
			return err
		}
	}
	return nil
}

// Load waits until a member begins to load, and says which.
func (c *Crowd) Load(limit time.Duration) (int, error) {
	select {
	case i := <-c.loads:
		return i, nil
	case <-time.After(limit):
		return 0, fmt.Errorf("nobody loads within %v", limit)
	}
}

// Kill ends a member with SIGKILL.
func (c *Crowd) Kill(i int) error {
	m := c.members[i]
	if err := m.cmd.Process.Kill(); err != nil {
		return err
	}
	<-m.gone
	_ = m.cmd.Wait()
	m.killed = true
	return nil
}

// Answers waits for the answers of all members that are left.
func (c *Crowd) Answers() (r Result, err error) {
	for _, m := range c.left() {
		e, err := m.wait()
		if err != nil {
			return r, err
		}
		r.Wrong += e.Wrong
		for _, us := range e.Took {
			r.Took = append(r.Took, time.Duration(us)*time.Microsecond)
		}
	}
	for { // a member tells of its load before it answers
		select {
		case <-c.loads:
			r.Loads++
		default:
			return r, nil
		}
	}
}

// Round is Ask and Answers.
func (c *Crowd) Round(key string) (Result, error) {
	if err := c.Ask(key); err != nil {
		return Result{}, err
	}
	return c.Answers()
}

// Close ends the members.
func (c *Crowd) Close() error {
	for _, m := range c.left() {
		_ = m.in.Close()
		_ = m.cmd.Wait()
	}
	return nil
}

// Main does nothing in a program that nobody started as a member; else it is the member, and ends.
func Main() {
	text := os.Getenv(variable)
	if text == "" {
		return
	}
	var setting Setting
	err := json.Unmarshal([]byte(text), &setting)
	if err == nil {
		err = run(setting)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "crowd:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(s Setting) error {
	ctx := context.Background()
	client, err := flatrate.Connect(ctx, s.URL)
	if err != nil {
		return err
	}
	defer client.Close()
	c, err := cache.New[string](client, cache.Config{
		TTL: s.TTL, Lease: s.Lease, Jitter: cache.NoJitter,
		Hooks: cache.Hooks{Error: func(op string, err error) { fmt.Fprintln(os.Stderr, "crowd:", op, err) }},
	})
	if err != nil {
		return err
	}
	var mu sync.Mutex
	out := json.NewEncoder(os.Stdout)
	tell := func(e event) {
		mu.Lock()
		defer mu.Unlock()
		_ = out.Encode(e)
	}
	tell(event{Kind: "ready"})
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var key string
		if err := json.Unmarshal(lines.Bytes(), &key); err != nil {
			return err
		}
		load := func(context.Context) (string, error) {
			tell(event{Kind: "load"})
			<-time.After(s.Load)
			return "value of " + key, nil
		}
		tell(ask(ctx, c, s.Callers, key, load))
	}
	return lines.Err()
}

func ask(ctx context.Context, c *cache.Cache[string], callers int, key string, load func(context.Context) (string, error)) event {
	done := event{Kind: "done", Took: make([]int64, callers)}
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			begin := time.Now()
			value, err := c.Get(ctx, key, load)
			done.Took[i] = time.Since(begin).Microseconds()
			if err != nil || value != "value of "+key {
				mu.Lock()
				done.Wrong++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return done
}
