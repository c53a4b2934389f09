// Package terraform writes Terraform for ElastiCache from a load, finds what is wrong with Terraform that is there, and takes
// Redis OSS to Valkey in it. docs/terraform.md has what it promises, and where its rules come from.
package terraform

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Versions are the versions of Valkey that can be asked for.
var Versions = []string{"7.2", "8.0", "8.1", "8.2", "9.0"}

// The least versions of what is generated: passwords_wo needs write-only arguments, durability came with 6.51.
const (
	leastTerraform = ">= 1.11"
	leastProvider  = ">= 6.51, < 7.0"
)

// removed are parameters that a family no longer has, from its major version on: Valkey 8 always frees in the background.
var removed = map[string]int{"lazyfree-lazy-expire": 8, "lazyfree-lazy-eviction": 8}

// limits are the defaults of the limits of small encodings, in Valkey 7.2 to 9.0. Lower ones need more memory.
var limits = map[string]int{
	"hash-max-listpack-entries": 512, "hash-max-listpack-value": 64,
	"zset-max-listpack-entries": 128, "zset-max-listpack-value": 64,
	"set-max-intset-entries": 512, "set-max-listpack-entries": 128, "set-max-listpack-value": 64,
}

// Family is the parameter-group family of a version of Valkey.
func Family(version string) string {
	major, _, _ := strings.Cut(version, ".")
	return "valkey" + major
}

// familyOf splits "valkey8" or "redis6.x" into engine and major version. Unknown ones have the version 0.
func familyOf(family string) (engine string, major int) {
	for _, engine := range []string{"valkey", "redis"} {
		if version, ok := strings.CutPrefix(family, engine); ok {
			number, _, _ := strings.Cut(version, ".")
			major, _ := strconv.Atoi(number)
			return engine, major
		}
	}
	return "", 0
}

// majorOf is the first number of "8.0" or "6.x".
func majorOf(version string) int {
	number, _, _ := strings.Cut(version, ".")
	major, _ := strconv.Atoi(number)
	return major
}

// CheckVersion says whether a version can be asked for.
func CheckVersion(version string) error {
	if !slices.Contains(Versions, version) {
		return fmt.Errorf("must be one of %s, not %q", strings.Join(Versions, ", "), version)
	}
	return nil
}
