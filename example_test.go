package flatrate_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/flatrate/flatrate"
	"github.com/valkey-io/valkey-go"
)

// One client serves all building blocks of a process.
func ExampleConnect() {
	ctx := context.Background()
	client, err := flatrate.Connect(ctx, os.Getenv("FLATRATE_VALKEY")) // valkeys://app@valkey.internal/0?password_file=/run/secrets/valkey
	if err != nil {
		log.Fatal(err) // one sentence: what is wrong, and where
	}
	defer client.Close()

	if err := client.Do(ctx, client.B().Set().Key("greeting").Value("hello").Build()).Error(); err != nil {
		log.Fatal(err)
	}
}

// Whatever a URL can't say is a field of valkey-go's options.
func ExampleConnect_tune() {
	client, err := flatrate.Connect(context.Background(), "valkey://localhost", func(o *valkey.ClientOption) {
		o.ClientName = "billing"
		o.BlockingPoolSize = 16
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
}

func ExampleConnect_wrong() {
	_, err := flatrate.Connect(context.Background(), "valkeys://app:secret@localhost?skip_verify=1")
	fmt.Println(errors.Is(err, flatrate.ErrURL), err)
	// Output: true flatrate: the URL is wrong: there is no skip_verify: certificates are always verified; the file of an authority is named with ca=
}
