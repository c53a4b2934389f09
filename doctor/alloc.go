package doctor

import "math"

// class is what jemalloc gives for n bytes. The quantum is 8 in the jemalloc that comes with the server
// (official images, managed services) and 16 in the system's (Debian, Ubuntu).
func class(n int64, quantum int64) int64 {
	switch {
	case n <= 0:
		return 0
	case n <= 8:
		return 8
	case n <= 128 && (quantum == 16 || n > 64):
		return (n + 15) &^ 15
	case n <= 64:
		return (n + 7) &^ 7
	}
	// Above, each doubling is divided into four.
	power := int64(64)
	for power*2 < n {
		power *= 2
	}
	step := power / 4
	return (n + step - 1) / step * step
}

// sds is the size of a string with its header and its zero byte, before the allocator.
func sds(n int64) int64 {
	switch {
	case n < 32:
		return 1 + n + 1
	case n < 256:
		return 3 + n + 1
	case n < 1<<16:
		return 5 + n + 1
	case n < 1<<32:
		return 9 + n + 1
	}
	return 17 + n + 1
}

// sds8 is the same for strings that always have a longer header: those within an object.
func sds8(n int64) int64 {
	if n < 256 {
		return 3 + n + 1
	}
	return sds(n)
}

func pow2(n int64) int64 {
	p := int64(4)
	for p < n {
		p *= 2
	}
	return p
}

// dictTable is the size of a chained hash table with n entries: a pointer for each slot.
func dictTable(n int64) int64 {
	if n == 0 {
		return 0
	}
	return 8 * pow2(n)
}

// bucketTable is the size of the table of Valkey 8.1 and later with n entries: buckets of 64 bytes for seven
// entries, and chained ones where more meet, which hashing makes a Poisson distribution.
func bucketTable(n int64) int64 {
	if n == 0 {
		return 0
	}
	buckets := int64(1)
	for buckets*7 < n {
		buckets *= 2
	}
	lambda := float64(n) / float64(buckets)
	p, chained := math.Exp(-lambda), 0.0
	for k := 0; k < 60; k++ {
		if k > 7 {
			chained += p * math.Ceil(float64(k-7)/6)
		}
		p *= lambda / float64(k+1)
	}
	if buckets == 1 {
		chained = 0
	}
	return int64(64 * float64(buckets) * (1 + chained))
}
