package bill

import (
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cost"
	"github.com/parquet-go/parquet-go"
)

var east = Options{Region: "us-east-1", ItemBytes: 2048, KeepGateway: true}

// cur2 is a line item as CUR 2.0 has it in Parquet.
type cur2 struct {
	Product string    `parquet:"line_item_product_code,dict"`
	Usage   string    `parquet:"line_item_usage_type,dict"`
	Amount  float64   `parquet:"line_item_usage_amount,optional"`
	Cost    float64   `parquet:"line_item_unblended_cost"`
	Kind    string    `parquet:"line_item_line_item_type"`
	Start   time.Time `parquet:"line_item_usage_start_date,timestamp(millisecond)"`
	End     time.Time `parquet:"line_item_usage_end_date,timestamp(millisecond)"`
	Region  string    `parquet:"product_region_code,optional"`
	Other   string    `parquet:"line_item_resource_id"`
}

// november is a month of a small shop, of 30 days.
func november() []cur2 {
	at := func(day int) time.Time { return time.Date(2026, 11, day, 0, 0, 0, 0, time.UTC) }
	row := func(day int, product, usage string, amount, usd float64, kind, region string) cur2 {
		return cur2{product, usage, amount, usd, kind, at(day), at(day + 1), region, "arn:aws:something,\"quoted\""}
	}
	var list []cur2
	for day := 1; day <= 30; day++ {
		list = append(list,
			row(day, "AmazonDynamoDB", "ReadRequestUnits", 4e6, .5, "Usage", "us-east-1"),
			row(day, "AmazonDynamoDB", "USE1-WriteRequestUnits", 2e5, .125, "Usage", "us-east-1"),
			row(day, "AmazonDynamoDB", "TimedStorage-ByteHrs", 24.0/730, .01, "Usage", "us-east-1"),
			row(day, "AWSQueueService", "Requests-RBP", 1e6, .4, "Usage", "us-east-1"),
			row(day, "AWSQueueService", "Requests-FIFO-Tier1", 1e5, .05, "Usage", ""),
			row(day, "AmazonApiGateway", "USE1-ApiGatewayRequest", 1e6, 3.5, "Usage", "us-east-1"),
			row(day, "AmazonApiGateway", "EU-ApiGatewayRequest", 1e9, 3500, "Usage", "eu-west-1"),
			row(day, "AmazonDynamoDB", "ReadRequestUnits", 4e6, -.5, "Credit", "us-east-1"),
			row(day, "AmazonEC2", "BoxUsage:t3.small", 24, .5, "Usage", "us-east-1"),
			row(day, "AmazonDynamoDB", "Streams-Requests", 1000, .25, "Usage", "us-east-1"),
			row(day, "AmazonDynamoDB", "USE1-ReadCapacityUnit-Hrs", 240, .03, "DiscountedUsage", "us-east-1"))
	}
	return list
}

var headers = map[string][]string{
	"CUR 2.0": {"line_item_product_code", "line_item_usage_type", "line_item_usage_amount", "line_item_unblended_cost", "line_item_line_item_type",
		"line_item_usage_start_date", "line_item_usage_end_date", "product_region_code", "line_item_resource_id"},
	"legacy": {"lineItem/ProductCode", "lineItem/UsageType", "lineItem/UsageAmount", "lineItem/UnblendedCost", "lineItem/LineItemType",
		"lineItem/UsageStartDate", "lineItem/UsageEndDate", "product/regionCode", "lineItem/ResourceId"},
	"FOCUS": {"x_ServiceCode", "x_UsageType", "ConsumedQuantity", "BilledCost", "ChargeCategory", "ChargePeriodStart", "ChargePeriodEnd", "RegionId", "ResourceId"},
}

func asCSV(header []string, rows []cur2) []byte {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	_ = w.Write(header)
	for _, r := range rows {
		_ = w.Write([]string{r.Product, r.Usage, fmt.Sprint(r.Amount), fmt.Sprint(r.Cost), r.Kind, r.Start.Format("2006-01-02T15:04:05.000Z"),
			r.End.Format(time.RFC3339), r.Region, r.Other})
	}
	w.Flush()
	return b.Bytes()
}

func zipped(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(data)
	_ = w.Close()
	return b.Bytes()
}

func asParquet(t testing.TB, rows []cur2) []byte {
	t.Helper()
	var b bytes.Buffer
	w := parquet.NewGenericWriter[cur2](&b, parquet.Compression(&parquet.Snappy), parquet.PageBufferSize(4096))
	for i := 0; i < len(rows); i += 100 { // several row groups
		if _, err := w.Write(rows[i:min(len(rows), i+100)]); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// wantNovember holds what a report of november must say, however it is written.
func wantNovember(t *testing.T, f Found) {
	t.Helper()
	byName := map[string]cost.Workload{}
	for _, w := range f.Workloads {
		byName[w.Name] = w
	}
	d, p, q, g := byName["dynamodb"].Usage.DynamoDB, byName["dynamodb provisioned"].Usage.DynamoDB.Provisioned, byName["sqs"].Usage.SQS, byName["api_gateway"]
	stored := d.StoredBytes / cost.GB // 24/730 of a GB-month each day is one GB
	if len(byName) != 4 || d.RRU != 120e6 || d.WRU != 6e6 || math.Abs(stored-1) > 1e-9 || math.Abs(p.RCU-10) > 1e-9 || q.StandardRequests != 30e6 || q.FIFORequests != 3e6 ||
		g.Usage.APIGateway.RESTRequests != 30e6 || !g.KeepsGateway {
		t.Errorf("%+v", f.Workloads)
	}
	notes := strings.Join(f.Notes, "\n")
	for _, want := range []string{"30.0 days, from 2026-11-01", "$105.00 for AmazonApiGateway", "30 line items of eu-west-1 are left out",
		"AmazonDynamoDB Streams-Requests is left out: $7.50"} {
		if !strings.Contains(notes, want) {
			t.Errorf("the notes lack %q:\n%s", want, notes)
		}
	}
}

func TestReports(t *testing.T) {
	rows := november()
	for name, header := range headers {
		for _, zip := range []bool{false, true} {
			data := asCSV(header, rows)
			if zip {
				data = zipped(data)
			}
			r := NewReport(east)
			if err := r.Read("f", bytes.NewReader(data)); err != nil {
				t.Fatal(name, err)
			}
			f, err := r.Found()
			if err != nil {
				t.Fatal(name, err)
			}
			wantNovember(t, f)
		}
	}
	r := NewReport(east)
	data := asParquet(t, rows)
	if !IsParquet(bytes.NewReader(data)) || IsParquet(bytes.NewReader([]byte("x"))) {
		t.Error("IsParquet")
	}
	if err := r.ReadParquet("f", bytes.NewReader(data), int64(len(data))); err != nil {
		t.Fatal(err)
	}
	f, err := r.Found()
	if err != nil {
		t.Fatal(err)
	}
	wantNovember(t, f)
}

// A report in parts is one report.
func TestReportInParts(t *testing.T) {
	rows := november()
	r := NewReport(east)
	first := asParquet(t, rows[:150])
	if err := r.ReadParquet("1", bytes.NewReader(first), int64(len(first))); err != nil {
		t.Fatal(err)
	}
	if err := r.Read("2", bytes.NewReader(zipped(asCSV(headers["CUR 2.0"], rows[150:])))); err != nil {
		t.Fatal(err)
	}
	f, err := r.Found()
	if err != nil {
		t.Fatal(err)
	}
	wantNovember(t, f)
}

func TestReportsThatAreWrong(t *testing.T) {
	rows := november()[:20]
	good := string(asCSV(headers["CUR 2.0"], rows))
	with := func(old, fresh string) string { return strings.Replace(good, old, fresh, 1) }
	for want, text := range map[string]string{
		"f:1: the file is empty":                    "",
		"f:1: these are not the columns":            "a,b,c\n1,2,3\n",
		"a CUR 2.0 would have line_item_usage_type": with("line_item_usage_type", "usage"),
		`f:2: usage amount: "lots" is not a number`: with("4e+06", "lots"),
		`usage amount: "NaN" is not a number`:       with("4e+06", "NaN"),
		"f:2: usage amount: +Inf is absurd":         with("4e+06", "Inf"),
		"f:2: usage amount: -1 is negative":         with("4e+06", "-1"),
		`f:2: "yesterday" is not a time`:            with("2026-11-01T00:00:00.000Z", "yesterday"),
		"is no time of a report":                    with("2026-11-01T00:00:00.000Z", "1026-11-01T00:00:00.000Z"),
		"f:2: wrong number of fields":               with("ReadRequestUnits,", "ReadRequestUnits,,"),
		`f:2: bare " in non-quoted`:                 with("ReadRequestUnits", `Read"RequestUnits`),
	} {
		r := NewReport(east)
		if err := r.Read("f", strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	r := NewReport(east)
	whole := zipped([]byte(good))
	if err := r.Read("f", bytes.NewReader(whole[:len(whole)/2])); err == nil || !strings.Contains(err.Error(), "the file is cut short") {
		t.Errorf("a gzip file cut short: %v", err)
	}
	r = NewReport(Options{Region: "ap-south-1"})
	if err := r.Read("f", strings.NewReader(good)); err != nil {
		t.Fatal(err)
	}
	f, err := r.Found()
	if err == nil && len(f.Workloads) > 1 || err != nil && !strings.Contains(err.Error(), "us-east-1") { // rows without a region count anywhere
		t.Errorf("%+v, %v", f.Workloads, err)
	}
	r = NewReport(east)
	if err := r.Read("f", strings.NewReader(strings.SplitAfter(good, "\n")[0])); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Found(); err == nil || !strings.Contains(err.Error(), "no usage of DynamoDB") {
		t.Errorf("a report of no lines: %v", err)
	}
}

func TestParquetThatIsWrong(t *testing.T) {
	whole := asParquet(t, november())
	read := func(data []byte) error {
		return NewReport(east).ReadParquet("f", bytes.NewReader(data), int64(len(data)))
	}
	for _, n := range []int{0, 4, 11, 12, len(whole) / 2, len(whole) - 1} {
		if err := read(whole[:n]); err == nil || !strings.Contains(err.Error(), "f: not a whole Parquet file") {
			t.Errorf("%d of %d bytes: %v", n, len(whole), err)
		}
	}
	type other struct{ A, B string }
	var b bytes.Buffer
	if err := parquet.Write(&b, []other{{"1", "2"}}); err != nil {
		t.Fatal(err)
	}
	if err := read(b.Bytes()); err == nil || !strings.Contains(err.Error(), "not the columns") {
		t.Errorf("other columns: %v", err)
	}
	rows := november()
	rows[123].Amount = -1
	if err := read(asParquet(t, rows)); err == nil || !strings.Contains(err.Error(), "f: row 124: usage amount: -1 is negative") {
		t.Errorf("a negative amount: %v", err)
	}
	// A byte that is another one is an error or a number, never a panic.
	for i := 4; i < len(whole)-8; i += 211 {
		damaged := bytes.Clone(whole)
		damaged[i] ^= 0xff
		_ = read(damaged)
	}
}

func FuzzReport(f *testing.F) {
	f.Add(asCSV(headers["CUR 2.0"], november()[:12]))
	f.Add(zipped(asCSV(headers["legacy"], november()[:12])))
	f.Add([]byte("\xef\xbb\xbfx_ServiceCode\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := NewReport(east)
		if r.Read("f", bytes.NewReader(data)) == nil {
			wantPriceable(t, r)
		}
	})
}

func FuzzParquet(f *testing.F) {
	f.Add(asParquet(f, november()[:5]))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<16 {
			return
		}
		r := NewReport(east)
		if r.ReadParquet("f", bytes.NewReader(data), int64(len(data))) == nil {
			wantPriceable(t, r)
		}
	})
}

// wantPriceable holds that whatever was read is a usage.
func wantPriceable(t *testing.T, r *Report) {
	f, err := r.Found()
	if err != nil {
		return
	}
	for _, w := range f.Workloads {
		if err := w.Usage.Validate(); err != nil {
			t.Fatalf("%s: %v", w.Name, err)
		}
	}
}
