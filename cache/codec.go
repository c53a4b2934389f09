package cache

import (
	"fmt"

	"github.com/flatrate/flatrate/internal/codec"
)

// Codec turns values into bytes and back, as encoding/json does. It is used from any goroutine.
type Codec interface {
	// Marshal gets a value of the cache's type.
	Marshal(value any) ([]byte, error)
	// Unmarshal gets a pointer to one, and bytes that it may keep but not change.
	Unmarshal(data []byte, value any) error
}

// Compressor makes bytes fewer and back again. It is used from any goroutine, and gives slices of its own.
type Compressor interface {
	Compress(data []byte) ([]byte, error)
	// Decompress has to bound by itself what it makes of data that it did not compress.
	Decompress(data []byte) ([]byte, error)
}

// encode returns the entry of a value.
func (c *Cache[V]) encode(value V, e entry) (text string, err error) {
	defer func() {
		if p := recover(); p != nil { // a codec, a compressor or a MarshalJSON is not ours
			err = fmt.Errorf("encoding panicked: %v", p)
		}
	}()
	if e.body, err = codec.Marshal(c.cfg.Codec, value); err != nil {
		return "", err
	}
	if c.cfg.Compressor != nil && len(e.body) >= c.cfg.MinCompress {
		small, err := c.cfg.Compressor.Compress(e.body)
		if err != nil {
			return "", err
		}
		if len(small) < len(e.body) {
			e.body, e.compressed = small, true
		}
	}
	return e.text(), nil
}

func (c *Cache[V]) decode(e entry) (value V, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("decoding panicked: %v", p)
		}
	}()
	body := e.body
	if e.compressed {
		if c.cfg.Compressor == nil {
			return value, fmt.Errorf("%w: it is compressed, and Config.Compressor is nil", errForeign)
		}
		if body, err = c.cfg.Compressor.Decompress(body); err != nil {
			return value, err
		}
	}
	return c.unmarshal(body)
}
