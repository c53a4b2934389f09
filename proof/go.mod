module github.com/flatrate/flatrate/proof

go 1.25.0

require github.com/flatrate/flatrate v0.0.0

// Dropped in the release commit: the toolkit is not published yet.
replace github.com/flatrate/flatrate => ..
