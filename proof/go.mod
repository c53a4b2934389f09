module github.com/flatrate/flatrate/proof

go 1.25.0

require (
	github.com/flatrate/flatrate v0.0.0
	github.com/valkey-io/valkey-go v1.0.79
)

require golang.org/x/sys v0.47.0 // indirect

// Dropped in the release commit: the toolkit is not published yet.
replace github.com/flatrate/flatrate => ..
