//go:build linux

package main

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
)

// TestLargeReport reads a generated Cost and Usage Report of FLATRATE_LARGE_CUR megabytes as CSV, gzip and Parquet, in a process of
// its own, and prints how long that took and how much memory at most.
func TestLargeReport(t *testing.T) {
	megabytes, err := strconv.Atoi(os.Getenv("FLATRATE_LARGE_CUR"))
	if err != nil {
		t.Skip("FLATRATE_LARGE_CUR is not set: make cur")
	}
	dir := t.TempDir()
	binary := filepath.Join(dir, "flatrate")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	files, rows := largeReport(t, dir, int64(megabytes)<<20)
	var first string
	for _, path := range files {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), binary, "cost", "--cur", path)
		cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+dir)
		begin := time.Now()
		out, err := cmd.Output()
		took := time.Since(begin)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		if !ok {
			t.Fatal("no usage of the process")
		}
		peak := usage.Maxrss >> 10
		t.Logf("%-16s %6d MB, %d rows: %5.1f s, %3.0f MB/s, peak memory %d MB", filepath.Base(path), info.Size()>>20, rows,
			took.Seconds(), float64(info.Size()>>20)/took.Seconds(), peak)
		if peak > 256 {
			t.Errorf("%s: peak memory %d MB", path, peak)
		}
		if first == "" {
			first = string(out)
		} else if string(out) != first {
			t.Errorf("%s says something else than the CSV:\n%s\n%s", path, out, first)
		}
	}
}

// item is a line item with what a report has beside the columns that count.
type item struct {
	ID      string    `parquet:"identity_line_item_id"`
	Payer   string    `parquet:"bill_payer_account_id,dict"`
	Kind    string    `parquet:"line_item_line_item_type,dict"`
	Start   time.Time `parquet:"line_item_usage_start_date,timestamp(millisecond)"`
	End     time.Time `parquet:"line_item_usage_end_date,timestamp(millisecond)"`
	Product string    `parquet:"line_item_product_code,dict"`
	Usage   string    `parquet:"line_item_usage_type,dict"`
	Amount  float64   `parquet:"line_item_usage_amount"`
	Cost    float64   `parquet:"line_item_unblended_cost"`
	Text    string    `parquet:"line_item_line_item_description"`
	Region  string    `parquet:"product_region_code,dict"`
	Tags    string    `parquet:"resource_tags"`
}

// largeReport writes the same month as CSV of so many bytes, as gzip and as Parquet.
func largeReport(t *testing.T, dir string, size int64) (files []string, rows int) {
	t.Helper()
	create := func(name string) *os.File {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f.Name())
		return f
	}
	plain, zipped, columns := create("report.csv"), create("report.csv.gz"), create("report.parquet")
	zip, err := gzip.NewWriterLevel(zipped, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	text := bufio.NewWriterSize(io.MultiWriter(plain, zip), 1<<20)
	table := parquet.NewGenericWriter[item](columns, parquet.Compression(&parquet.Snappy), parquet.MaxRowsPerRowGroup(100_000))
	written, _ := fmt.Fprintln(text, "identity_line_item_id,bill_payer_account_id,line_item_line_item_type,line_item_usage_start_date,line_item_usage_end_date,"+
		"line_item_product_code,line_item_usage_type,line_item_usage_amount,line_item_unblended_cost,line_item_line_item_description,product_region_code,resource_tags")
	for total := int64(written); total < size; rows++ {
		r := lineItem(rows)
		n, err := fmt.Fprintf(text, "%s,%s,%s,%s,%s,%s,%s,%g,%g,\"%s\",%s,\"%s\"\n", r.ID, r.Payer, r.Kind, r.Start.Format(time.RFC3339), r.End.Format(time.RFC3339),
			r.Product, r.Usage, r.Amount, r.Cost, r.Text, r.Region, r.Tags)
		if err != nil {
			t.Fatal(err)
		}
		total += int64(n)
		if _, err := table.Write([]item{r}); err != nil {
			t.Fatal(err)
		}
	}
	for _, end := range []func() error{text.Flush, zip.Close, table.Close, plain.Close, zipped.Close, columns.Close} {
		if err := end(); err != nil {
			t.Fatal(err)
		}
	}
	return files, rows
}

// lineItem is the same for the same n.
func lineItem(n int) item {
	kinds := []struct{ product, usage string }{
		{"AmazonDynamoDB", "ReadRequestUnits"}, {"AmazonDynamoDB", "WriteRequestUnits"}, {"AWSQueueService", "Requests-RBP"},
		{"AmazonApiGateway", "USE1-ApiGatewayHttpRequest"}, {"AmazonEC2", "BoxUsage:t3.small"}, {"AmazonS3", "Requests-Tier2"},
		{"AmazonS3", "TimedStorage-ByteHrs"}, {"AWSLambda", "Request"}, {"AmazonCloudWatch", "CW:Requests"}, {"awskms", "us-east-1-KMS-Requests"},
	}
	k := kinds[n%len(kinds)]
	start := time.Date(2026, 11, 1, n%720, 0, 0, 0, time.UTC)
	return item{
		ID: fmt.Sprintf("%052d", n), Payer: "123456789012", Kind: "Usage", Start: start, End: start.Add(time.Hour), Product: k.product, Usage: k.usage,
		Amount: float64(1000 + n%977), Cost: float64(n%977) / 1e6, Region: "us-east-1",
		Text: "$0.125 per million units (US East (N. Virginia)), resource " + strconv.Itoa(n),
		Tags: strings.Repeat("user:team=platform;", 12),
	}
}
