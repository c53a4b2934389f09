package fault

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate"
	"github.com/flatrate/flatrate/queue"
)

// queueVariable makes this program a producer or a consumer of a queue.
const queueVariable = "FLATRATE_QUEUE_MEMBER"

// queueMember says what such a process does. It tells what it has done line by line, in a file that it appends to: a line is
// written whole or not at all.
type queueMember struct {
	URL, File     string
	Consumer      bool
	FIFO          bool
	Number, Begin int // of a producer, and the number of its first message
	Workers       int
}

// queueMain is the whole life of a member. It returns in other processes.
func queueMain() {
	text := os.Getenv(queueVariable)
	if text == "" {
		return
	}
	var m queueMember
	err := json.Unmarshal([]byte(text), &m)
	if err == nil {
		err = m.run(context.Background())
	}
	fmt.Fprintln(os.Stderr, "queue member:", err)
	os.Exit(1)
}

func (m queueMember) run(ctx context.Context) error {
	client, err := flatrate.Connect(ctx, m.URL)
	if err != nil {
		return err
	}
	q, err := queue.New(client, queue.Config{Name: "q", FIFO: m.FIFO, Visibility: 2 * time.Second})
	if err != nil {
		return err
	}
	file, err := os.OpenFile(m.File, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	tell := func(line string) error { _, err := file.WriteString(line + "\n"); return err }
	failed := make(chan error, m.Workers)
	for w := range m.Workers {
		go func() {
			if m.Consumer {
				failed <- m.consume(ctx, q, tell)
			} else {
				failed <- m.produce(ctx, q, w, tell)
			}
		}()
	}
	return <-failed
}

// produce sends "GROUP NUMBER" until it is killed, and tells what was taken.
func (m queueMember) produce(ctx context.Context, q *queue.Queue, w int, tell func(string) error) error {
	group := fmt.Sprintf("%d-%d", m.Number, w)
	for i := m.Begin; ; i += 10 {
		batch := make([]queue.Message, 10)
		var lines strings.Builder
		for j := range batch {
			line := group + " " + strconv.Itoa(i+j)
			batch[j] = queue.Message{Body: []byte(line), Group: group}
			lines.WriteString("\n" + line)
		}
		if _, err := q.SendBatch(ctx, batch); err != nil {
			return err
		}
		if err := tell(lines.String()[1:]); err != nil {
			return err
		}
	}
}

// consume tells what has come, and then acknowledges it.
func (m queueMember) consume(ctx context.Context, q *queue.Queue, tell func(string) error) error {
	n := 10
	if m.FIFO {
		n = 1
	}
	for {
		ds, err := q.Receive(ctx, queue.ReceiveOptions{Max: n, Wait: 20 * time.Second})
		if err != nil {
			return err
		}
		if len(ds) == 0 {
			continue
		}
		var lines strings.Builder
		receipts := make([]string, len(ds))
		for i, d := range ds {
			receipts[i] = d.Receipt
			lines.WriteString("\n" + string(d.Body))
		}
		if err := tell(lines.String()[1:]); err != nil {
			return err
		}
		for _, err := range q.AckBatch(ctx, receipts) {
			if err != nil {
				return err
			}
		}
	}
}

// spawnMember starts a member.
func spawnMember(t *testing.T, m queueMember) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), queueVariable+"="+string(text))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// lines calls do with the group and the number of each line of a file.
func eachLine(t *testing.T, path string, do func(group string, n int)) {
	t.Helper()
	file, err := os.Open(path)
	if os.IsNotExist(err) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	scan := bufio.NewScanner(file)
	for scan.Scan() {
		group, text, _ := strings.Cut(scan.Text(), " ")
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("%s: %q", path, scan.Text())
		}
		do(group, n)
	}
	if err := scan.Err(); err != nil {
		t.Fatal(err)
	}
}

// count is what a checker outside the library found.
type count struct {
	sent, came, lost, twice, unknown, order int
}

func (c *count) String() string {
	return fmt.Sprintf("%d sent, %d came, %d lost, %d twice, %d of unknown fate came, %d out of order", c.sent, c.came, c.lost, c.twice, c.unknown, c.order)
}
