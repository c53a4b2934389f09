package script

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var (
	firstLine = regexp.MustCompile(`^#!lua(?: flags=([a-z,-]+))?$`)
	named     = regexp.MustCompile(`^-- (KEYS|ARGV)\[(\d+)(\.\.)?\]  \S`)
	indexed   = regexp.MustCompile(`\b(KEYS|ARGV)\[(\d+)\]`)
	dynamic   = regexp.MustCompile(`#?\b(KEYS|ARGV)\b(?:\[\D|[^\[]|$)`)
	libraries = regexp.MustCompile(`\b(cmsgpack|struct|bit)\.`)

	// The flags that the servers know.
	flags = []string{"no-writes", "allow-oom", "allow-stale", "no-cluster", "allow-cross-slot-keys"}
)

// Check holds a script's source to the rules of the house: a #!lua line with known flags, comments
// below it that name each of KEYS and ARGV that the body uses ("-- KEYS[1]  what it is"; "ARGV[3..]"
// for all from the third on) and the reply ("-- reply    what it is"), and no library that some
// server or the embedded engine lacks.
func Check(source string) error {
	lines := strings.Split(source, "\n")
	first := firstLine.FindStringSubmatch(lines[0])
	if first == nil {
		return fmt.Errorf("line 1 is %q, not #!lua with or without flags", lines[0])
	}
	for flag := range strings.SplitSeq(first[1], ",") {
		if flag != "" && !slices.Contains(flags, flag) {
			return fmt.Errorf("line 1: unknown flag %q", flag)
		}
	}
	declared, body, err := header(lines[1:])
	if err != nil {
		return err
	}
	used := map[string]bool{}
	for _, m := range indexed.FindAllStringSubmatch(body, -1) {
		used[m[1]+"["+m[2]+"]"] = true
	}
	for _, m := range dynamic.FindAllStringSubmatch(body, -1) {
		used[m[1]+"[..]"] = true
	}
	for index := range used {
		if !declared[index] {
			return fmt.Errorf("the body uses %s, which the header does not name", index)
		}
	}
	for index := range declared {
		if !used[index] {
			return fmt.Errorf("the header names %s, which the body does not use", index)
		}
	}
	if lib := libraries.FindString(body); lib != "" {
		return fmt.Errorf("the body uses the %s library", strings.TrimSuffix(lib, "."))
	}
	return nil
}

// header reads the comments below the first line and returns what they name, and the code below them.
func header(lines []string) (declared map[string]bool, body string, err error) {
	declared = map[string]bool{}
	reply := false
	for i, line := range lines {
		if !strings.HasPrefix(line, "--") {
			body = strings.Join(lines[i:], "\n")
			break
		}
		if m := named.FindStringSubmatch(line); m != nil {
			index := m[1] + "[" + m[2] + "]"
			if m[3] != "" {
				index = m[1] + "[..]"
			}
			if declared[index] {
				return nil, "", fmt.Errorf("line %d names %s again", i+2, index)
			}
			declared[index] = true
		}
		reply = reply || strings.HasPrefix(line, "-- reply  ")
	}
	if !reply {
		return nil, "", errors.New("the header does not say what the reply is")
	}
	return declared, withoutComments(body), nil
}

func withoutComments(body string) string {
	lines := strings.Split(body, "\n")
	for i, line := range lines {
		lines[i], _, _ = strings.Cut(line, "--")
	}
	return strings.Join(lines, "\n")
}
