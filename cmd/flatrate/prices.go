package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/pricelist"
	"github.com/flatrate/flatrate/cmd/flatrate/internal/report"
	"github.com/flatrate/flatrate/cost"
)

type pricesCmd struct {
	List   pricesListCmd   `cmd:"" help:"Print the price table, with sources and dates."`
	Update pricesUpdateCmd `cmd:"" help:"Read AWS's public price lists, show what changed, and keep it."`
}

type pricesListCmd struct {
	Region    string `help:"Only this region."`
	PriceFile string `name:"prices" placeholder:"FILE" help:"This table, in place of the updated or the shipped one."`
	Shipped   bool   `name:"shipped-prices" help:"The shipped table even if there is an updated one."`
	Output    string `enum:"table,json" default:"table" help:"table or json."`
}

// updatedPath is where prices update keeps its table.
func updatedPath() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "flatrate", "prices.json"), nil
}

// loadPrices returns the table that holds: the one that is named, else the updated one, else the shipped one. The note is for
// people, and empty for the shipped one.
func loadPrices(file string, shippedOnly bool) (cost.Table, string, error) {
	if file == "" && !shippedOnly {
		if path, err := updatedPath(); err == nil {
			if _, err := os.Stat(path); err == nil {
				file = path
			}
		}
	}
	if file == "" {
		t, err := cost.Shipped()
		return t, "", err
	}
	data, err := os.ReadFile(file) //nolint:gosec // the operator names the file
	if err != nil {
		return cost.Table{}, "", err
	}
	t, err := cost.ReadTable(bytes.NewReader(data))
	if err != nil {
		return cost.Table{}, "", fmt.Errorf("%s: %w (--shipped-prices uses the shipped table)", report.Printable(file), err)
	}
	return t, "prices of " + report.Printable(file), nil
}

// Run prints the table.
func (c *pricesListCmd) Run(io stdio) error {
	table, note, err := loadPrices(c.PriceFile, c.Shipped)
	if err != nil {
		return err
	}
	io.warn("%s", cmp.Or(note, "the shipped price table; prices update reads AWS's public lists"))
	quotes, terms := []cost.Quote{}, []cost.Condition{}
	for _, region := range table.Regions() {
		if c.Region == "" || c.Region == region {
			p, err := table.Region(region)
			if err != nil {
				return err
			}
			terms = append(terms, p.Conditions()...)
		}
	}
	for _, q := range table.Quotes() {
		if c.Region == "" || c.Region == q.Region {
			quotes = append(quotes, q)
		}
	}
	if len(quotes) == 0 {
		return usagef("--region: no prices of %q; known are %s", c.Region, strings.Join(table.Regions(), ", "))
	}
	if c.Output == "json" {
		out := json.NewEncoder(io.out)
		out.SetIndent("", "  ")
		return out.Encode(map[string]any{"prices": quotes, "terms": terms})
	}
	return priceTable(quotes, terms).Write(io.out)
}

func priceTable(quotes []cost.Quote, terms []cost.Condition) *report.Table {
	var t report.Table
	last := ""
	for _, q := range quotes {
		if group := q.Region + " " + q.Service; group != last {
			t.Heading(group)
			last = group
		}
		remark := "a " + q.Unit
		if q.Per != 1 {
			remark = "a million " + q.Unit + "s"
		}
		if q.Above > 0 {
			remark += " above " + report.Count(int64(q.Above))
		}
		t.Row(q.Unit, fmt.Sprintf("$%v", q.USD), remark+"; "+q.Source.String())
	}
	for i, c := range terms {
		if i == 0 {
			t.Heading("terms")
		}
		t.Row(c.Service+" "+c.Unit, fmt.Sprint(c.Amount), c.Term+"; "+c.Source.String())
	}
	return &t
}

type pricesUpdateCmd struct {
	Region  string        `default:"us-east-1" help:"Whose prices to read."`
	From    string        `default:"https://pricing.us-east-1.amazonaws.com" placeholder:"URL|FOLDER" help:"Where the price lists are: https, or a folder with the same tree."`
	To      string        `type:"path" placeholder:"FILE" help:"The table that is replaced; by default the one in your configuration folder, which cost uses."`
	DryRun  bool          `help:"Only show what would change."`
	Force   bool          `help:"Also take prices that changed more than fivefold."`
	Timeout time.Duration `default:"10m" help:"How long all lists may take."`
}

// Run reads the lists, compares, and replaces the table when all of it is there.
func (c *pricesUpdateCmd) Run(ctx context.Context, std stdio) error {
	if c.Timeout <= 0 {
		return usagef("--timeout must be above zero, not %v", c.Timeout)
	}
	if strings.Contains(c.From, "://") && !strings.HasPrefix(c.From, "https://") {
		scheme, _, _ := strings.Cut(c.From, "://") // the rest may hold a password
		return usagef("--from: a URL of %q: neither https nor a folder", scheme)
	}
	path := c.To
	if path == "" {
		var err error
		if path, err = updatedPath(); err != nil {
			return err
		}
	}
	old, err := c.old(path)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	source := pricelist.Source{Base: c.From, Client: &http.Client{CheckRedirect: stayOnHTTPS},
		Watch: func(name string, r io.Reader, size int64) (io.Reader, func()) {
			std.warn("reading the price list of %s", name)
			return report.Progress(std.err, r, size)
		}}
	list, err := source.Read(ctx, c.Region, knownNodes(old))
	if err != nil {
		return fmt.Errorf("%w; the table stays as it is", err)
	}
	next, err := old.Replace(list.Quotes)
	if err != nil {
		return fmt.Errorf("%w; the table stays as it is", err)
	}
	changes, absurd := difference(old, list.Quotes, c.Region)
	if err := changes.Write(std.out); err != nil {
		return err
	}
	if list.Skipped > 0 {
		std.warn("%d prices of nodes whose memory is not known are left out", list.Skipped)
	}
	std.warn("EC2 machines, load balancers and transfer are in none of these lists: their prices stay")
	switch {
	case len(absurd) > 0 && !c.Force:
		return fmt.Errorf("changed more than fivefold, and not taken (--force takes them): %s; the table stays as it is", strings.Join(absurd, ", "))
	case c.DryRun:
		return nil
	}
	var text bytes.Buffer
	if err := next.Write(&text); err != nil {
		return err
	}
	if _, err := cost.ReadTable(bytes.NewReader(text.Bytes())); err != nil { // what will be read is what is kept
		return fmt.Errorf("%w; the table stays as it is", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // prices are no secret
		return err
	}
	if err := writeWhole(path, text.Bytes()); err != nil {
		return err
	}
	std.warn("kept in %s", path)
	return nil
}

// stayOnHTTPS refuses to be sent on to where anybody can listen.
func stayOnHTTPS(r *http.Request, via []*http.Request) error {
	if r.URL.Scheme != "https" || len(via) > 5 {
		return errors.New("sent on to what is not https, or too often")
	}
	return nil
}

// old is the table that is replaced, or the shipped one.
func (c *pricesUpdateCmd) old(path string) (cost.Table, error) {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return cost.Shipped()
	}
	t, _, err := loadPrices(path, false)
	return t, err
}

// knownNodes are the nodes whose memory is known, and MemoryDB's of the same machines.
func knownNodes(t cost.Table) map[string]bool {
	known := map[string]bool{}
	for _, q := range t.Quotes() {
		name, _, _ := strings.Cut(q.Unit, " ")
		if q.Service == "elasticache" {
			known[name] = true
			known["db."+strings.TrimPrefix(name, "cache.")] = true
		}
	}
	return known
}

// difference says what changes, and which prices by more than is likely.
func difference(old cost.Table, fresh []cost.Quote, region string) (*report.Table, []string) {
	key := func(q cost.Quote) string { return fmt.Sprintf("%s %s %v", q.Service, q.Unit, q.Above) }
	was := map[string]cost.Quote{}
	for _, q := range old.Quotes() {
		if q.Region == region {
			was[key(q)] = q
		}
	}
	var t report.Table
	var absurd []string
	same, dated := 0, 0
	t.Heading("prices of " + region)
	for _, q := range fresh {
		name := q.Service + " " + q.Unit
		if q.Above > 0 {
			name += " above " + report.Count(int64(q.Above))
		}
		before, ok := was[key(q)]
		switch ratio := q.USD / q.Per / (before.USD / before.Per); {
		case !ok:
			t.Row(name, fmt.Sprintf("$%v", q.USD), "new")
		case ratio > 1.0000001 || ratio < 0.9999999:
			t.Row(name, fmt.Sprintf("$%v", q.USD), fmt.Sprintf("was $%v, %+.1f%%", before.USD, 100*(ratio-1)))
			if ratio > 5 || ratio < 0.2 {
				absurd = append(absurd, name)
			}
		case before.Source != q.Source:
			same, dated = same+1, dated+1
		default:
			same++
		}
	}
	t.Row("unchanged", report.Count(int64(same)), fmt.Sprintf("%d of them with a new date", dated))
	return &t, absurd
}
