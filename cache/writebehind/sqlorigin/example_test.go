package sqlorigin_test

import (
	"context"
	"database/sql"
	"log"

	"github.com/flatrate/flatrate/cache/writebehind"
	"github.com/flatrate/flatrate/cache/writebehind/sqlorigin"
	"github.com/valkey-io/valkey-go"
)

var (
	client valkey.Client // from flatrate.Connect
	db     *sql.DB       // from sql.Open, with the driver of your choice
)

type score struct {
	Player string
	Points int64
}

// Scores go to a table of PostgreSQL: CREATE TABLE scores (id text PRIMARY KEY, player text, points bigint, gone boolean NOT
// NULL, version bigint NOT NULL).
func ExampleNew() {
	save, err := sqlorigin.New(db, sqlorigin.Table[score]{
		Dialect: sqlorigin.PostgreSQL,
		Name:    "scores", Key: "id", Version: "version", Deleted: "gone",
		Columns: []string{"player", "points"},
		Values:  func(s score) ([]any, error) { return []any{s.Player, s.Points}, nil },
	})
	if err != nil {
		log.Fatal(err)
	}
	scores, err := writebehind.New(client, writebehind.Config[score]{Name: "score", Origin: save})
	if err != nil {
		log.Fatal(err)
	}
	if err := scores.Start(context.Background()); err != nil {
		log.Fatal(err)
	}
}
