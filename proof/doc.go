// Package proof holds flatrate against the outside: peers, faults and other clients.
package proof
