module github.com/flatrate/flatrate/contrib/gorilla

go 1.25.0

require (
	github.com/flatrate/flatrate v0.0.0-00010101000000-000000000000
	github.com/gorilla/sessions v1.4.0
)

require (
	github.com/gorilla/securecookie v1.1.2 // indirect
	github.com/valkey-io/valkey-go v1.0.79 // indirect
	golang.org/x/sys v0.47.0 // indirect
)

// Dropped in the release commit: the toolkit is not published yet.
replace github.com/flatrate/flatrate => ../..
