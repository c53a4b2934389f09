// Command flatrate replays, prices and inspects what one Valkey does in place of metered services.
package main

func main() {}
