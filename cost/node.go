package cost

import (
	"cmp"
	"strings"
)

// nodeService are the services whose prices are of nodes.
var nodeService = map[string]bool{"elasticache": true, "memorydb": true, "ec2": true}

// service is where a node type is sold, by its name.
func (n Node) service() string {
	switch {
	case strings.HasPrefix(n.Type, "cache."):
		return "elasticache"
	case strings.HasPrefix(n.Type, "db."):
		return "memorydb"
	}
	return "ec2"
}

func trimService(nodeType string) string {
	return strings.TrimPrefix(strings.TrimPrefix(nodeType, "cache."), "db.")
}

// The commands a second that one node is taken to do. One thread of Valkey does over 100,000 simple commands a
// second on one core of today; burstable nodes keep up only their baseline share of it (EC2 documentation, burstable
// instances: 10% of a vCPU for micro, 20% for small and medium).
const (
	coreCommands   = 100_000
	smallCommands  = 20_000
	microCommands  = 10_000
	microSuffix    = ".micro"
	burstableFirst = "t"
)

// CommandsPerSecond is how many simple commands a node is taken to keep up: an assumption, see docs/cost.md.
func (n Node) CommandsPerSecond() float64 {
	name := trimService(n.Type)
	switch {
	case strings.HasPrefix(name, burstableFirst) && strings.HasSuffix(name, microSuffix):
		return microCommands
	case strings.HasPrefix(name, burstableFirst):
		return smallCommands
	}
	return coreCommands
}

// cutLast cuts at the last space.
func cutLast(text string) (before, after string, found bool) {
	i := strings.LastIndexByte(text, ' ')
	if i < 0 {
		return text, "", false
	}
	return text[:i], text[i+1:], true
}

func compareRates(a, b Rate) int {
	return cmp.Or(cmp.Compare(a.Region, b.Region), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Unit, b.Unit), cmp.Compare(a.Above, b.Above))
}
