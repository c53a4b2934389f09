package session

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"

	"github.com/flatrate/flatrate/internal/key"
)

// keySpace holds fr:sess:{TOKEN}.
func keySpace(prefix string) (key.Space, error) {
	s, err := key.NewSpace(prefix, "sess")
	if err != nil {
		return s, fmt.Errorf("session: Config.Prefix: %w", err)
	}
	return s, nil
}

// digest is what a key has of a token: 128 bits, which can't be turned back.
func digest(token string) string {
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// wellFormed says whether token has the form of crypto/rand.Text: 26 letters of base32.
func wellFormed(token string) bool {
	if len(token) != 26 {
		return false
	}
	for i := range len(token) {
		if c := token[i]; (c < 'A' || c > 'Z') && (c < '2' || c > '7') {
			return false
		}
	}
	return true
}
