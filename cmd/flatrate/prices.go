package main

import "github.com/flatrate/flatrate/cost"

func loadPrices(file string, shippedOnly bool) (cost.Table, string, error) {
	t, err := cost.Shipped()
	return t, "", err
}
