package cost

// How DynamoDB rounds, from its developer guide: capacity unit consumption and item size limits.
const (
	readUnitBytes  = 4 << 10
	writeUnitBytes = 1 << 10
	maxItemBytes   = 400 << 10
	maxReadBytes   = 1 << 20 // one page of a Query
)

// readFactor is RRU per 4 KB started.
var readFactor = map[Consistency]float64{"": 1, Strong: 1, Eventual: 0.5, Transactional: 2}

// Products are converted to float64 before they are summed: that rounds them, where some processors would
// fuse the two and give another last digit. The same usage must give the same bill everywhere.

func (r ItemReads) units() float64 {
	return float64(r.Count * started(r.ItemBytes, readUnitBytes) * readFactor[r.Consistency])
}

func (w ItemWrites) units() float64 {
	factor := 1.0
	if w.Transactional {
		factor = 2
	}
	return float64(w.Count * started(w.ItemBytes, writeUnitBytes) * factor)
}

// started counts the blocks that bytes begin, at least one: AWS charges for asking, too.
func started(bytes, block int64) float64 {
	return float64(max(1, (bytes+block-1)/block))
}

// charge is an amount of one unit that AWS puts on the bill.
type charge struct {
	service, unit string // as in prices.csv
	units         float64
}

// charges turns operations into units, service by service. A new service is fields in Usage, rows here and
// rows in prices.csv.
func (u Usage) charges() []charge {
	var rru, wru float64
	for _, r := range u.DynamoDB.Reads {
		rru += r.units()
	}
	for _, w := range u.DynamoDB.Writes {
		wru += w.units()
	}
	return []charge{
		{"dynamodb", "RRU", rru},
		{"dynamodb", "WRU", wru},
		{"dynamodb", "GB-month", u.DynamoDB.StoredBytes / GB},
		{"api_gateway", "REST request", u.APIGateway.RESTRequests},
		{"api_gateway", "HTTP request", u.APIGateway.HTTPRequests},
	}
}
