// Package bill reads what metered services were used, and what they charged: Cost and Usage Reports, CloudWatch metrics, Terraform
// plans, the command statistics of a running server, and the output of flatrate replay.
package bill

import (
	"fmt"
	"strings"
	"time"

	"github.com/flatrate/flatrate/cost"
)

// Found is what a source says.
type Found struct {
	Workloads []cost.Workload // a month each
	Flat      *cost.Flat      // nodes that are there or planned; nil if the source has none
	Notes     []string        // one line each, for people
}

// Options are what a source doesn't say.
type Options struct {
	Region      string
	ItemBytes   int64            // of an item whose size is not known
	Consistency cost.Consistency // of reads whose consistency is not known
	REST        bool             // an API whose kind is not known is REST, else HTTP
	KeepGateway bool
	Batch       int // messages in a call of SQS; 0 is single sends and receives of ten
}

func (o Options) messages(count float64, bytes int64) cost.Messages {
	m := cost.Messages{Count: count, Bytes: bytes, SendBatch: o.Batch, ReceiveBatch: o.Batch, DeleteBatch: o.Batch}
	if o.Batch == 0 {
		m.ReceiveBatch, m.DeleteBatch = 10, 10
	}
	return m
}

// Messages are so many of a size, in the batches of the options.
func (o Options) Messages(count float64, bytes int64) cost.Messages { return o.messages(count, bytes) }

func (f *Found) note(format string, args ...any) {
	f.Notes = append(f.Notes, fmt.Sprintf(format, args...))
}

// add appends a workload that has something in it, scaled from span to a month.
func (f *Found) add(name string, u cost.Usage, span time.Duration, keep bool) error {
	month, err := u.PerMonth(span)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	f.Workloads = append(f.Workloads, cost.Workload{Name: name, Usage: month, KeepsGateway: keep})
	return nil
}

// spanText is a span in days, with the hours if there are few.
func spanText(d time.Duration) string {
	if d < 72*time.Hour {
		return fmt.Sprintf("%.1f hours", d.Hours())
	}
	return fmt.Sprintf("%.1f days", d.Hours()/24)
}

// short is text cut for an error.
func short(text string) string {
	const most = 40
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return fmt.Sprintf("%q", text)
}
