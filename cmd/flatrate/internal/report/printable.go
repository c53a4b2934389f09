package report

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Printable escapes what a terminal would act on, or not show: control characters, marks that turn the direction of text, bytes
// that are no UTF-8. File names, arguments and a server's answers may hold any of them.
func Printable(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		if part := text[i : i+size]; r != utf8.RuneError && strconv.IsPrint(r) {
			b.WriteString(part)
		} else {
			quoted := strconv.Quote(part)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		i += size
	}
	return b.String()
}
