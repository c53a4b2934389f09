module github.com/flatrate/flatrate

go 1.25.0

require (
	github.com/maypok86/otter/v2 v2.4.0
	github.com/valkey-io/valkey-go v1.0.79
)

require golang.org/x/sys v0.47.0 // indirect
