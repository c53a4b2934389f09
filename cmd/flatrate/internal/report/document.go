package report

import (
	_ "embed"
	"html/template"
	"io"
	"strings"
)

// Document is a report of several tables, which can be written as text, as Markdown and as a page of HTML. What is in
// its cells may be anybody's.
type Document struct {
	Title    string
	Lead     []string
	Sections []*Section
}

// Section is a table with a title. A heading that begins with ">" has its column on the right.
type Section struct {
	Title   string
	Heading []string
	Rows    [][]string
	// Stacked has each row of Text in lines of their own: its cells are sentences.
	Stacked bool
}

// Section adds one, and returns it to be filled.
func (d *Document) Section(title string, heading ...string) *Section {
	s := &Section{Title: title, Heading: heading}
	d.Sections = append(d.Sections, s)
	return s
}

// Row adds a row of as many cells as the heading has.
func (s *Section) Row(cells ...string) { s.Rows = append(s.Rows, cells) }

// Text writes it for a terminal. Sections without rows are left out, here and below.
func (d *Document) Text(w io.Writer) error {
	var b strings.Builder
	b.WriteString(Printable(d.Title) + "\n")
	for _, line := range d.Lead {
		b.WriteString("  " + Printable(line) + "\n")
	}
	for _, s := range d.Sections {
		if len(s.Rows) == 0 {
			continue
		}
		b.WriteString("\n" + s.Title + "\n")
		if s.Stacked {
			s.stack(&b)
			continue
		}
		c := NewColumns(s.Heading...)
		for _, row := range s.Rows {
			c.Row(row...)
		}
		var table strings.Builder
		if err := c.Write(&table); err != nil {
			return err
		}
		for line := range strings.Lines(table.String()) {
			b.WriteString("  " + line)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// stack writes a row as its first two cells, and the others below, each behind its heading.
func (s *Section) stack(b *strings.Builder) {
	for _, row := range s.Rows {
		b.WriteString("  " + Printable(row[0]) + "  " + Printable(row[1]) + "\n")
		for i, cell := range row[2:] {
			if cell != "" {
				name := strings.ToLower(strings.TrimPrefix(s.Heading[i+2], ">"))
				b.WriteString("    " + name + ": " + Printable(cell) + "\n")
			}
		}
	}
}

// markdown escapes what would be formatting.
var markdown = strings.NewReplacer(`\`, `\\`, "|", `\|`, "*", `\*`, "_", `\_`, "`", "\\`", "<", "&lt;", "[", `\[`, "#", `\#`)

// Markdown writes it for an issue or a wiki.
func (d *Document) Markdown(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# " + markdown.Replace(Printable(d.Title)) + "\n\n")
	for _, line := range d.Lead {
		b.WriteString("- " + markdown.Replace(Printable(line)) + "\n")
	}
	for _, s := range d.Sections {
		if len(s.Rows) == 0 {
			continue
		}
		b.WriteString("\n## " + s.Title + "\n\n|")
		rule := "\n|"
		for _, h := range s.Heading {
			name, right := strings.CutPrefix(h, ">")
			b.WriteString(" " + name + " |")
			if right {
				rule += "---:|"
			} else {
				rule += "---|"
			}
		}
		b.WriteString(rule + "\n")
		for _, row := range s.Rows {
			b.WriteString("|")
			for _, cell := range row {
				b.WriteString(" " + markdown.Replace(Printable(cell)) + " |")
			}
			b.WriteString("\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

//go:embed document.html
var documentHTML string

var documentPage = template.Must(template.New("document").Funcs(template.FuncMap{
	"printable": Printable,
	"name":      func(h string) string { return strings.TrimPrefix(h, ">") },
	"side": func(s *Section, i int) string {
		if strings.HasPrefix(s.Heading[i], ">") {
			return "right"
		}
		return "left"
	},
}).Parse(documentHTML))

// HTML writes it as one page that loads nothing: it can be mailed, and printed.
func (d *Document) HTML(w io.Writer) error { return documentPage.Execute(w, d) }
