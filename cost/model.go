package cost

import (
	"fmt"
	"math"
	"slices"
)

// Workload is one use of metered services that Valkey could take over: a service of an estimate.
type Workload struct {
	// Name is unique in a plan, as "sessions" or "queue".
	Name string `json:"name"`
	// Usage is a month of what it uses now.
	Usage Usage `json:"usage"`
	// Need is what it would take of Valkey. Nil means Usage.Need.
	Need *Need `json:"need,omitempty"`
	// KeepsGateway says that API Gateway stays where it is, and is paid on both sides: Valkey counts requests, it does not
	// take them in. Otherwise the flat side has a load balancer.
	KeepsGateway bool `json:"keeps_gateway,omitempty"`
	// Note is one line about what the figures don't say.
	Note string `json:"note,omitempty"`
}

func (w Workload) need() Need {
	if w.Need != nil {
		return *w.Need
	}
	return w.Usage.Need()
}

// Plan is all that is compared: workloads on metered services against one flat side for all of them.
type Plan struct {
	Workloads []Workload `json:"workloads"` // one to 12
	Flat      Flat       `json:"flat"`
	Sizing    Sizing     `json:"sizing"`
}

const (
	maxWorkloads = 12
	loadScale    = "load" // the scale of what was measured
)

// replacesGateway says whether moving w takes API Gateway away, for which a load balancer comes.
func (w Workload) replacesGateway() bool {
	g := w.Usage.APIGateway
	return !w.KeepsGateway && g.RESTRequests+g.HTTPRequests > 0
}

func (p Plan) validate() error {
	if n := len(p.Workloads); n == 0 || n > maxWorkloads {
		return fmt.Errorf("%w: workloads: %d are not 1 to %d", ErrInvalid, n, maxWorkloads)
	}
	for i, w := range p.Workloads {
		if w.Name == "" {
			return fmt.Errorf("%w: workloads[%d].name: missing", ErrInvalid, i)
		}
		if slices.ContainsFunc(p.Workloads[:i], func(o Workload) bool { return o.Name == w.Name }) {
			return fmt.Errorf("%w: workloads[%d].name: %q is there twice", ErrInvalid, i, w.Name)
		}
		if err := w.Usage.Validate(); err != nil {
			return fmt.Errorf("%s: %w", w.Name, err)
		}
	}
	return nil
}

// Input is one number that an estimate depends on. Low is what makes it save less, High what makes it save more:
// estimates look which is which by themselves.
type Input struct {
	Name     string  `json:"name"`
	Unit     string  `json:"unit,omitempty"`
	Low      float64 `json:"low"`
	Expected float64 `json:"expected"`
	High     float64 `json:"high"`
	// Choices name the values 0, 1, 2 of an input that is no number.
	Choices []string `json:"choices,omitempty"`
}

// at is an input that is known.
func at(name, unit string, v float64) Input {
	return Input{Name: name, Unit: unit, Low: v, Expected: v, High: v}
}

// ends are the two values between which the input's weight is measured: its own, or 10% to either side.
func (in Input) ends() (a, b float64) {
	switch {
	case in.Low != in.High:
		return in.Low, in.High
	case len(in.Choices) > 0:
		return in.Expected, in.Expected
	}
	return in.Expected * 0.9, in.Expected * 1.1
}

// Values are inputs by name.
type Values map[string]float64

// Model makes a plan of its inputs, so that an estimate can vary them.
type Model struct {
	Inputs []Input
	// Scale is the input along which the break-even is looked for, "users" say. It must make the metered side grow.
	Scale string
	// Build makes the plan for values of all inputs. It may be called some thousand times.
	Build func(Values) Plan
	// Assumptions are lines about what the inputs don't say.
	Assumptions []string
}

func (m Model) expected() Values {
	v := Values{}
	for _, in := range m.Inputs {
		v[in.Name] = in.Expected
	}
	return v
}

func (v Values) with(name string, value float64) Values {
	c := Values{}
	for k, old := range v {
		c[k] = old
	}
	c[name] = value
	return c
}

func (m Model) validate() error {
	if m.Build == nil {
		return fmt.Errorf("%w: a model without Build", ErrInvalid)
	}
	scale := false
	for _, in := range m.Inputs {
		for _, v := range []float64{in.Low, in.Expected, in.High} {
			if math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
				return fmt.Errorf("%w: %s: %v is not a number of 0 or more", ErrInvalid, in.Name, v)
			}
		}
		scale = scale || in.Name == m.Scale
	}
	if !scale {
		return fmt.Errorf("%w: scale %q is no input", ErrInvalid, m.Scale)
	}
	return nil
}

// Measured makes a model of workloads that were counted, or that somebody states: the load of each, and what it needs in memory,
// by a factor that may be off by spread to either side (0 to 0.9). Along the scale "load" all of them grow together.
func Measured(workloads []Workload, flat Flat, sizing Sizing, spread float64) Model {
	factor := func(name string) Input {
		return Input{Name: name, Unit: "x", Low: 1 - spread, Expected: 1, High: 1 + spread}
	}
	m := Model{Scale: loadScale, Inputs: []Input{at(loadScale, "x", 1), at("peak over average", "x", sizing.Peak), at("headroom", "", sizing.Headroom)}}
	for _, w := range workloads {
		m.Inputs = append(m.Inputs, factor(w.Name+": operations"))
	}
	m.Inputs = append(m.Inputs, factor("memory"))
	m.Build = func(v Values) Plan {
		p := Plan{Flat: flat, Sizing: Sizing{Headroom: min(0.9, v["headroom"]), Peak: max(1, v["peak over average"]), Above: sizing.Above}}
		for _, w := range workloads {
			k := v[loadScale] * v[w.Name+": operations"]
			need := w.need()
			w.Need = &Need{Bytes: need.Bytes * v["memory"] * v[loadScale], Commands: need.Commands * k, ECPUs: need.ECPUs * k,
				TransferBytes: need.TransferBytes * k, WrittenBytes: need.WrittenBytes * k}
			w.Usage = w.Usage.Times(k)
			w.Usage.DynamoDB.StoredBytes *= v[loadScale]
			w.Usage.DynamoDB.StoredItems *= v[loadScale]
			w.Usage.DynamoDB.Provisioned.RCU *= k
			w.Usage.DynamoDB.Provisioned.WCU *= k
			w.Usage.Database.InstanceUSD *= v[loadScale]
			p.Workloads = append(p.Workloads, w)
		}
		return p
	}
	return m
}
