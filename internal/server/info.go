package server

import (
	"fmt"
	"strconv"
	"strings"
)

// parseInfo reads the reply of INFO: lines of "field:value" between "# Section" headings. What is
// neither is skipped, and the first of two equal fields counts. In RESP3 the text is a verbatim string,
// which begins with its format.
func parseInfo(text string) map[string]string {
	text = strings.TrimPrefix(text, "txt:")
	fields := make(map[string]string)
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
		if !ok || name == "" || strings.HasPrefix(name, "#") {
			continue
		}
		if _, twice := fields[name]; !twice {
			fields[name] = value
		}
	}
	return fields
}

// Version is a server's version. The zero value means that it is unknown.
type Version struct{ Major, Minor, Patch int }

// AtLeast reports whether v is major.minor or newer. An unknown version is not.
func (v Version) AtLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && v.Minor >= minor
}

// String is as in "8.0.1", or "unknown".
func (v Version) String() string {
	if v == (Version{}) {
		return "unknown"
	}
	return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch)
}

// parseVersion reads the leading numbers of "8.0.1", "7.4" or "9.0.0-rc1"; without a first number
// the version is unknown.
func parseVersion(text string) Version {
	var parts [3]int
	for i, part := range strings.SplitN(text, ".", len(parts)) {
		digits := len(part) - len(strings.TrimLeft(part, "0123456789"))
		n, err := strconv.Atoi(part[:digits])
		if err != nil {
			break
		}
		parts[i] = n
		if digits < len(part) {
			break
		}
	}
	return Version{parts[0], parts[1], parts[2]}
}
