package session

import (
	"encoding/json"
	"fmt"
	"strings"
)

// reserved says whether a member is the package's own.
func (m member) reserved() bool { return m.name != "" && m.name[0] == '@' }

// encode splits a value into its members.
func encode(value any) ([]member, error) {
	b, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("session: value: %w", err)
	}
	if b[0] != '{' {
		return nil, fmt.Errorf("session: value: a %T does not encode as a JSON object", value)
	}
	return split(string(b))
}

// split takes apart an object as json.Marshal writes it: valid, and without white space.
func split(object string) ([]member, error) {
	var all []member
	for rest := object[1:]; rest != "}"; {
		end := skip(rest) // of the name
		m := member{name: rest[1 : end-1]}
		rest = rest[end+1:]
		end = skip(rest)
		m.value, rest = rest[:end], rest[end:]
		if rest[0] == ',' {
			rest = rest[1:]
		}
		if strings.Contains(m.name, `\`) {
			if err := json.Unmarshal([]byte(`"`+m.name+`"`), &m.name); err != nil {
				return nil, fmt.Errorf("session: value: %w", err)
			}
		}
		if err := checkName(m.name); err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

func checkName(name string) error {
	if strings.HasPrefix(name, "@") {
		return fmt.Errorf("session: value: the member %q begins with @, which is reserved", name)
	}
	for i := range len(name) {
		if c := name[i]; c < ' ' || c == '"' || c == '\\' || c == 0x7f {
			return fmt.Errorf("session: value: the name of the member %q has a quote, a backslash or a control character", name)
		}
	}
	return nil
}

// skip returns where the JSON value ends that text begins with.
func skip(text string) int {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			for i++; text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
			if depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
			if depth < 0 {
				return i
			}
		case ',':
			if depth == 0 {
				return i
			}
		}
	}
	return len(text)
}

// lookup finds the values of members by their names.
func lookup(all []member) func(name string) (value string, ok bool) {
	if len(all) <= 16 {
		return func(name string) (string, bool) {
			for _, m := range all {
				if m.name == name {
					return m.value, true
				}
			}
			return "", false
		}
	}
	byName := make(map[string]string, len(all))
	for _, m := range all {
		byName[m.name] = m.value
	}
	return func(name string) (string, bool) {
		value, ok := byName[name]
		return value, ok
	}
}

// change is what a member becomes; an empty value removes it.
type change struct{ name, value string }

// diff returns what turns before into now.
func diff(before, now []member) (changes []change) {
	old, stays := lookup(before), lookup(now)
	for _, m := range now {
		if value, had := old(m.name); !had || value != m.value {
			changes = append(changes, change(m))
		}
	}
	for _, m := range before {
		if _, ok := stays(m.name); !ok {
			changes = append(changes, change{name: m.name})
		}
	}
	return changes
}

// covers says whether now is, to the letter, the part of stored that the program knows: then nothing has changed.
func covers(stored, now []member, known names) bool {
	old, count := lookup(stored), 0
	for _, m := range now {
		if value, had := old(m.name); !had || value != m.value {
			return false
		}
	}
	for _, m := range stored {
		if !m.reserved() && known.has(m.name) {
			count++
		}
	}
	return count == len(now)
}

func apply(stored []member, changes []change) []member {
	if len(changes) == 0 {
		return stored
	}
	all := make([]member, len(changes))
	for i, c := range changes {
		all[i] = member(c)
	}
	changed := lookup(all)
	after := make([]member, 0, len(stored)+len(changes))
	for _, m := range stored {
		if _, replaced := changed(m.name); !replaced {
			after = append(after, m)
		}
	}
	for _, m := range all {
		if m.value != "" {
			after = append(after, m)
		}
	}
	return after
}
