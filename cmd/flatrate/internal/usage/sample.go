package usage

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"
)

// What a generated log is made of. Only integers decide, so that every machine writes the same bytes.
const (
	samplePeople  = 3000 // who come back, the first ones more often
	sampleTargets = 2000
	sampleVisits  = 25 // people on the site at any time
	sampleGap     = 11 // seconds between two requests are uniform in [0, gap]
	sampleBurst   = 40 // one request in so many visits starts a burst of a heavy client
)

var sampleStart = time.Date(2026, time.March, 2, 6, 0, 0, 0, time.UTC)

var sampleAgents = [...]string{
	`Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36`,
	`Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Mobile/15E148 Safari/604.1`,
	`Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605.1.15`,
	`Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0`,
	`Mozilla/5.0 (Linux; Android 14; \"Pixel 8\") AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Mobile Safari/537.36`,
	`{app:\"reader\",v:[3,1]}`,
	`-`,
}

var sampleBots = [...]string{
	`Mozilla/5.0 (compatible; ExampleBot/2.1; +http://bot.example/about)`,
	`python-requests/2.32.3`,
	`Go-http-client/2.0`,
}

// Sample writes a generated log in combined format, about 20,000 lines a day. The same seed gives the same bytes, and a longer log
// begins with the shorter one.
func Sample(w io.Writer, seed uint64, lines int) error {
	s := sample{
		rand:    rand.New(rand.NewPCG(seed, 0)),
		people:  harmonic(samplePeople),
		targets: harmonic(sampleTargets),
		now:     sampleStart,
	}
	for i := range s.visits {
		s.visits[i] = s.visit()
	}
	var line []byte
	for range lines {
		line = s.line(line[:0])
		if _, err := w.Write(line); err != nil {
			return err
		}
	}
	return nil
}

// sample is the site at one moment.
type sample struct {
	rand            *rand.Rand
	people, targets []uint64 // cumulative weights
	now             time.Time
	visits          [sampleVisits]visit
	burst           visit // while it has requests left, nobody else comes near
}

// visit is one client's stay.
type visit struct {
	address, agent string
	left           int // requests
}

// harmonic returns the cumulative weights of a Zipf distribution: rank n is met 1/n as often as the first.
func harmonic(n uint64) []uint64 {
	sums, sum := make([]uint64, n), uint64(0)
	for rank := range n {
		sum += 1_000_000 / (rank + 1)
		sums[rank] = sum
	}
	return sums
}

// pick returns a rank.
func (s *sample) pick(sums []uint64) uint64 {
	rank, _ := slices.BinarySearch(sums, 1+s.rand.Uint64N(sums[len(sums)-1]))
	return uint64(rank)
}

// visit starts the stay of somebody who may have been here before.
func (s *sample) visit() visit {
	person := s.pick(s.people)
	mixed := scramble(person)
	address := fmt.Sprintf("%d.%d.%d.%d", 11+mixed%180, mixed>>8%256, mixed>>16%256, 1+mixed>>24%254)
	if mixed%16 == 0 {
		address = fmt.Sprintf("2001:db8:%x:%x::%x", mixed>>16%65536, mixed>>32%65536, 1+person)
	}
	return visit{address, sampleAgents[mixed>>40%uint64(len(sampleAgents))], 1 + s.rand.IntN(30)}
}

// heavy starts a burst of one of a few machines.
func (s *sample) heavy() visit {
	bot := s.rand.Uint64N(12)
	return visit{fmt.Sprintf("198.51.100.%d", 10+bot), sampleBots[bot%uint64(len(sampleBots))], 50 + s.rand.IntN(250)}
}

// next advances the clock and says who sends the next request.
func (s *sample) next() visit {
	if s.burst.left > 0 && s.rand.IntN(20) > 0 {
		s.burst.left--
		s.now = s.now.Add(time.Duration(s.rand.IntN(500)) * time.Millisecond)
		return s.burst
	}
	s.now = s.now.Add(time.Duration(s.rand.IntN(sampleGap*1000)) * time.Millisecond)
	who := &s.visits[s.rand.IntN(len(s.visits))]
	if who.left == 0 {
		*who = s.visit()
		if s.rand.IntN(sampleBurst) == 0 {
			s.burst = s.heavy()
		}
	}
	who.left--
	return *who
}

// line appends one line.
func (s *sample) line(line []byte) []byte {
	who, at := s.next(), s.now
	if s.rand.IntN(20) == 0 { // logged late: the request took that long
		at = at.Add(-time.Duration(s.rand.IntN(6)) * time.Second)
	}
	user := "-"
	if s.rand.IntN(200) == 0 {
		user = "mary ann"
	}
	line = fmt.Appendf(line, "%s - %s [", who.address, user)
	line = at.AppendFormat(line, "02/Jan/2006:15:04:05 -0700")
	line = append(line, "] "...)
	line = s.request(line)
	return fmt.Appendf(line, " \"%s\"\n", who.agent)
}

// request appends request, status, size and referer.
func (s *sample) request(line []byte) []byte {
	if s.rand.IntN(500) == 0 { // a connection that sent nothing, or spoke TLS
		return append(line, [...]string{`"-" 408 - "-"`, `"\x16\x03\x01\x02" 400 150 "-"`}[s.rand.IntN(2)]...)
	}
	target := s.pick(s.targets)
	mixed := scramble(target + samplePeople)
	path := fmt.Sprintf("/%s/%d", [...]string{"item", "list", "img", "doc"}[target%4], target)
	if target%5 == 0 {
		path += fmt.Sprintf("?page=%d&q=%%7Bnew%%7D", 1+mixed%3)
	}
	size := 300 + mixed%4096<<(mixed>>16%6) // up to 128 KiB, each target its own
	switch n := s.rand.IntN(100); {
	case n < 6:
		return fmt.Appendf(line, `"POST %s HTTP/1.1" 201 %d "-"`, path, 40+mixed%100)
	case n < 9:
		return fmt.Appendf(line, `"HEAD %s HTTP/1.1" 200 - "-"`, path)
	case n < 18:
		return fmt.Appendf(line, `"GET %s HTTP/2.0" 304 - "https://shop.example/"`, path)
	case n < 21:
		return fmt.Appendf(line, `"GET /old%s HTTP/1.1" 404 209 "-"`, path)
	default:
		return fmt.Appendf(line, `"GET %s HTTP/1.1" 200 %d "https://shop.example/list/%d"`, path, size, mixed%9)
	}
}

// scramble spreads small numbers (SplitMix64).
func scramble(n uint64) uint64 {
	n += 0x9e3779b97f4a7c15
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}
