package cost

// How DynamoDB rounds, from its developer guide: capacity unit consumption and item size limits.
const (
	readUnitBytes  = 4 << 10
	writeUnitBytes = 1 << 10
	maxItemBytes   = 400 << 10
	maxReadBytes   = 1 << 20 // one page of a Query
	indexBytes     = 100     // that AWS adds to each stored item
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

// charge is an amount of one unit that AWS, or whoever runs the database, puts on the bill.
type charge struct {
	service, unit string // as in prices.csv
	units         float64
	yours         float64 // the caller's own price of one unit; zero is the table's
	free          float64 // of the units, which the bill does not show
}

// charges turns operations into units, service by service. A new service is fields in Usage, rows here and
// rows in prices.csv.
func (u Usage) charges(free float64) []charge {
	rru, wru := u.DynamoDB.RRU, u.DynamoDB.WRU
	for _, r := range u.DynamoDB.Reads {
		rru += r.units()
	}
	for _, w := range u.DynamoDB.Writes {
		wru += w.units()
	}
	var list []charge
	if p := u.DynamoDB.Provisioned; p.RCU > 0 || p.WCU > 0 {
		list = append(list, charge{service: "dynamodb", unit: "RCU-hour", units: p.RCU * HoursPerMonth},
			charge{service: "dynamodb", unit: "WCU-hour", units: p.WCU * HoursPerMonth})
	} else {
		list = append(list, charge{service: "dynamodb", unit: "RRU", units: rru}, charge{service: "dynamodb", unit: "WRU", units: wru})
	}
	stored := u.DynamoDB.StoredBytes + float64(u.DynamoDB.StoredItems*indexBytes)
	standard, fifo := u.SQS.StandardRequests, u.SQS.FIFORequests
	for _, m := range u.SQS.Standard {
		standard += m.requests()
	}
	for _, m := range u.SQS.FIFO {
		fifo += m.requests()
	}
	// The dearer requests are taken to be the free ones: the metered side gets the benefit of the doubt.
	free = max(0, free-u.SQS.FreeUsed)
	freeFIFO := min(free, fifo)
	freeStandard := min(free-freeFIFO, standard)
	db := u.Database
	return append(list,
		charge{service: "dynamodb", unit: "GB-month", units: stored / GB},
		charge{service: "sqs", unit: "standard request", units: standard - freeStandard, free: freeStandard},
		charge{service: "sqs", unit: "FIFO request", units: fifo - freeFIFO, free: freeFIFO},
		charge{service: "api_gateway", unit: "REST request", units: u.APIGateway.RESTRequests},
		charge{service: "api_gateway", unit: "HTTP request", units: u.APIGateway.HTTPRequests},
		db.reads(), db.instance())
}

func (db Database) reads() charge {
	c := charge{service: "database", unit: "read", units: float64(db.Reads * db.HitRate), yours: db.USDPerMillion / 1e6}
	if c.yours == 0 && db.InstanceUSD > 0 {
		c.units = 0 // the sum says what they cost
	}
	return c
}

func (db Database) instance() charge {
	c := charge{service: "database", unit: "smaller instance", yours: db.InstanceUSD}
	if db.InstanceUSD > 0 {
		c.units = 1
	}
	return c
}
