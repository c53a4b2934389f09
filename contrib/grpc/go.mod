module github.com/flatrate/flatrate/contrib/grpc

go 1.25.0

require (
	github.com/flatrate/flatrate v0.0.0-00010101000000-000000000000
	github.com/valkey-io/valkey-go v1.0.79
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260706201446-f0a921348800
	google.golang.org/grpc v1.84.0
	google.golang.org/protobuf v1.36.11
)

require (
	golang.org/x/net v0.57.0 // indirect
	golang.org/x/sys v0.47.0 // indirect
	golang.org/x/text v0.41.0 // indirect
)

// Dropped in the release commit: the toolkit is not published yet.
replace github.com/flatrate/flatrate => ../..
