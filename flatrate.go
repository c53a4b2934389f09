// Package flatrate puts one Valkey to work in place of metered services.
//
// The building blocks stand in packages of their own and share one client:
//
//	lock       mutual exclusion with an owner and a lease
//	ratelimit  limits decided by the server's clock
//	session    server-side sessions with an idle timeout
//	cache      typed cache-aside with TTL jitter
//	cost       what metered services charge for the same usage
//	valkeytest real servers and clusters for tests
//
// [Connect] makes the client from one URL.
package flatrate
