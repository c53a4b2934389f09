// Package yamlfile reads YAML that people write: every error has a line and a column, all of them are reported
// at once, and what is not understood is refused: unknown keys, keys given twice, aliases, more than one document.
package yamlfile

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// MaxBytes is the largest file that is read.
const MaxBytes = 1 << 20

// maxProblems is how many are reported.
const maxProblems = 20

// Read returns the content of a file of at most MaxBytes.
func Read(path string) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("%s: over %d bytes", path, MaxBytes)
	}
	return data, nil
}

// Problem is one thing that is wrong with a file.
type Problem struct {
	Line, Column int // from 1
	Message      string
}

// Error lists what is wrong with a file, from top to bottom. Its text has a line for each problem:
// file:line:column: message.
type Error struct {
	File     string
	Problems []Problem
}

func (e *Error) Error() string {
	var b strings.Builder
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s:%d:%d: %s", e.File, p.Line, p.Column, p.Message)
	}
	return b.String()
}

// Document is a file that is being read. Values report their problems to it.
type Document struct {
	file     string
	problems []Problem
	more     bool
}

// Value is a part of a document.
type Value struct {
	doc  *Document
	node *yaml.Node
}

// Parse returns the value of the only document in data. file stands in errors.
func Parse(file string, data []byte) (*Document, Value, error) {
	d := &Document{file: file}
	if len(data) > MaxBytes {
		d.add(1, 1, fmt.Sprintf("over %d bytes", MaxBytes))
		return d, Value{}, d.Err()
	}
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		return d, Value{}, fmt.Errorf("%s: %w", file, err)
	}
	var first, second yaml.Node
	if err := loader.Load(&first); errors.Is(err, io.EOF) {
		d.add(1, 1, "the file is empty")
		return d, Value{}, d.Err()
	} else if err != nil {
		d.syntax(err)
		return d, Value{}, d.Err()
	}
	if err := loader.Load(&second); err == nil {
		d.add(second.Line, second.Column, "a second document")
	} else if !errors.Is(err, io.EOF) {
		d.syntax(err)
	}
	node := &first
	if node.Kind == yaml.DocumentNode && len(node.Content) == 1 {
		node = node.Content[0]
	}
	d.noAliases(node)
	return d, Value{d, node}, d.Err()
}

// syntax reports what the parser says.
func (d *Document) syntax(err error) {
	var load *yaml.LoadError
	if !errors.As(err, &load) {
		d.add(1, 1, err.Error())
		return
	}
	mark, message := load.Mark, load.Message
	if mark.Line == 0 {
		mark = load.ContextMark
	}
	d.add(mark.Line, mark.Column, "no valid YAML: "+message)
}

// noAliases refuses what would make one line of a file stand in many places.
func (d *Document) noAliases(node *yaml.Node) {
	if node.Kind == yaml.AliasNode || node.Anchor != "" {
		d.add(node.Line, node.Column, "anchors and aliases are not supported")
		return
	}
	for _, child := range node.Content {
		d.noAliases(child)
	}
}

func (d *Document) add(line, column int, message string) {
	if len(d.problems) >= maxProblems {
		d.more = true
		return
	}
	d.problems = append(d.problems, Problem{max(1, line), max(1, column), message})
}

// Err is nil, or an *Error with the problems found so far.
func (d *Document) Err() error {
	if len(d.problems) == 0 {
		return nil
	}
	problems := slices.Clone(d.problems)
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if d.more {
		last := problems[len(problems)-1]
		problems = append(problems, Problem{last.Line, last.Column, "there are more problems"})
	}
	return &Error{d.file, problems}
}

// Problems is how many there are so far.
func (d *Document) Problems() int { return len(d.problems) }

// Fail reports a problem with the value.
func (v Value) Fail(format string, args ...any) {
	v.doc.add(v.node.Line, v.node.Column, fmt.Sprintf(format, args...))
}

// Map is a mapping: its keys with their values.
type Map struct {
	Value
	keys   []Value
	values []Value
}

// Map reads a mapping of any keys, none of them twice, and reports it if it is none.
func (v Value) Map() (Map, bool) {
	m := Map{Value: v}
	if v.node.Kind != yaml.MappingNode {
		v.Fail("not a mapping (key: value)")
		return m, false
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		key, value := Value{v.doc, v.node.Content[i]}, Value{v.doc, v.node.Content[i+1]}
		if key.node.Kind != yaml.ScalarNode || key.node.Tag == "!!null" || key.node.Tag == "!!merge" || key.node.Value == "" {
			key.Fail("not a name")
			continue
		}
		if line, again := seen[key.node.Value]; again {
			key.Fail("key %q again: it is in line %d already", key.node.Value, line)
			continue
		}
		seen[key.node.Value] = key.node.Line
		m.keys, m.values = append(m.keys, key), append(m.values, value)
	}
	return m, true
}

// Keys reads a mapping of these keys only; it reports others, with the nearest right one.
func (v Value) Keys(known ...string) (Map, bool) {
	m, ok := v.Map()
	for _, key := range m.keys {
		if !slices.Contains(known, key.Name()) {
			if near := Nearest(key.Name(), known); near != "" {
				key.Fail("unknown key %q: %q?", key.Name(), near)
			} else {
				key.Fail("unknown key %q: not one of %s", key.Name(), strings.Join(known, ", "))
			}
		}
	}
	return m, ok
}

// All yields the keys and values, in the order of the file.
func (m Map) All(yield func(key, value Value) bool) {
	for i := range m.keys {
		if !yield(m.keys[i], m.values[i]) {
			return
		}
	}
}

// Get returns the value of a key. A value that is null counts as missing.
func (m Map) Get(name string) (Value, bool) {
	for i, key := range m.keys {
		if key.Name() == name && m.values[i].node.Tag != "!!null" {
			return m.values[i], true
		}
	}
	return Value{}, false
}

// At is the value of a key if there is one, else the mapping: where a problem with it is reported.
func (m Map) At(name string) Value {
	for i, key := range m.keys {
		if key.Name() == name {
			return m.values[i]
		}
	}
	return m.Value
}

// Name is the text of a key.
func (v Value) Name() string { return v.node.Value }

// List returns the elements of a list, and reports a value that is none.
func (v Value) List() []Value {
	if v.node.Kind != yaml.SequenceNode {
		v.Fail("not a list")
		return nil
	}
	all := make([]Value, len(v.node.Content))
	for i, node := range v.node.Content {
		all[i] = Value{v.doc, node}
	}
	return all
}

// Text returns a text: a number is none unless it is quoted.
func (v Value) Text() string {
	if v.node.Kind != yaml.ScalarNode || v.node.Tag != "!!str" {
		v.Fail("not a text")
		return ""
	}
	return v.node.Value
}

var wholeNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*|[1-9][0-9]{0,2}(_[0-9]{3})+)$`)

// Int returns a whole number in decimal, which may be grouped as in 10_000. ok is false if it is none: that is
// reported.
func (v Value) Int() (n int64, ok bool) {
	if v.node.Kind == yaml.ScalarNode && v.node.Style == 0 && wholeNumber.MatchString(v.node.Value) {
		n, err := strconv.ParseInt(strings.ReplaceAll(v.node.Value, "_", ""), 10, 64)
		if err != nil {
			v.Fail("%s is out of range", v.node.Value)
		}
		return n, err == nil
	}
	v.Fail("not a whole number")
	return 0, false
}

var decimal = regexp.MustCompile(`^-?(0|[1-9][0-9]*|[1-9][0-9]{0,2}(_[0-9]{3})+)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?$`)

// Float returns a decimal number, whose whole part may be grouped as in 10_000.5. ok is false if it is none, or out of range: that
// is reported.
func (v Value) Float() (n float64, ok bool) {
	if v.node.Kind == yaml.ScalarNode && v.node.Style == 0 && decimal.MatchString(v.node.Value) {
		n, err := strconv.ParseFloat(strings.ReplaceAll(v.node.Value, "_", ""), 64)
		if err != nil {
			v.Fail("%s is out of range", v.node.Value)
		}
		return n, err == nil
	}
	v.Fail("not a number")
	return 0, false
}

// Bool returns true or false.
func (v Value) Bool() bool { return v.Word("false", "true") == 1 }

// Plain returns the text of a number as it stands in the file, or "" for what is no plain scalar.
func (v Value) Plain() string {
	if v.node.Kind != yaml.ScalarNode || v.node.Style != 0 {
		return ""
	}
	return v.node.Value
}

var days = regexp.MustCompile(`^([0-9]{1,5})d(.*)$`)

// Duration returns a duration such as 250ms, 1m30s or 30d.
func (v Value) Duration() time.Duration {
	text, whole := v.node.Value, time.Duration(0)
	if v.node.Kind != yaml.ScalarNode {
		text = ""
	}
	rest := text
	if m := days.FindStringSubmatch(text); m != nil {
		n, _ := strconv.Atoi(m[1]) // five digits
		whole, rest = time.Duration(n)*24*time.Hour, m[2]
		if rest == "" {
			return whole
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d > math.MaxInt64-whole || whole > 0 && d < 0 {
		v.Fail("not a duration such as 250ms, 1m30s or 30d")
		return 0
	}
	return whole + d
}

// Word returns which of the words it is, or -1 if none: that is reported.
func (v Value) Word(words ...string) int {
	text := ""
	if v.node.Kind == yaml.ScalarNode {
		text = v.node.Value
	}
	i := slices.Index(words, text)
	if i < 0 {
		v.Fail("not one of %s", strings.Join(words, ", "))
	}
	return i
}

// Nearest is the known word that name was most likely meant to be, or "".
func Nearest(name string, known []string) string {
	if len(name) > 64 {
		return ""
	}
	best, least := "", 1+max(1, len(name)/3)
	for _, k := range known {
		if d := distance(strings.ToLower(name), strings.ToLower(k)); d < least {
			best, least = k, d
		}
	}
	return best
}

// distance is how many letters have to be changed, added or removed.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
