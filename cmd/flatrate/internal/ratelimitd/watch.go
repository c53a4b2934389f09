package ratelimitd

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/yamlfile"
)

const (
	poll     = time.Second // between two looks at the files
	maxFiles = 1000        // of a folder
)

// watched are files that are loaded again when they have changed. A change counts once two looks have found the same,
// so that files which are being written are not read. What can't be used leaves in force what was.
type watched struct {
	what  string
	paths []string
	load  func([]file) error
	log   *slog.Logger
	count func(what string, ok bool)

	mu     sync.Mutex
	loaded digest
	tried  digest // of the last files that failed; zero if none
	seen   digest // of the last look, if it differs from these
}

type digest [sha256.Size]byte

type file struct {
	name string
	data []byte
}

// open loads the files for the first time.
func (w *watched) open() error {
	files, err := w.read()
	if err == nil {
		err = w.load(files)
	}
	w.loaded = sum(files, err)
	return err
}

// run looks after changes until ctx ends.
func (w *watched) run(ctx context.Context) {
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			w.look()
		}
	}
}

func (w *watched) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	files, err := w.read()
	now := sum(files, err)
	switch {
	case now == w.tried:
		w.seen = digest{}
	case now == w.loaded && w.tried == digest{}:
		w.seen = digest{}
	case now == w.seen:
		_ = w.replace(files, err)
	default:
		w.seen = now
	}
}

// reload reads the files now.
func (w *watched) reload() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.replace(w.read())
}

func (w *watched) replace(files []file, err error) error {
	now := sum(files, err)
	w.seen = digest{}
	if err == nil {
		err = w.load(files)
	}
	w.count(w.what, err == nil)
	if err != nil {
		w.tried = now
		w.log.Error("the "+w.what+" stay as they are", "error", err)
		return err
	}
	if now != w.loaded {
		w.log.Info("the "+w.what+" have changed", "files", w.paths)
	}
	w.loaded, w.tried = now, digest{}
	return nil
}

// read returns the files, those of folders in the order of their names.
func (w *watched) read() ([]file, error) {
	var all []file
	for _, path := range w.paths {
		names, err := namesOf(path)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			data, err := yamlfile.Read(name)
			if err != nil {
				return nil, err
			}
			all = append(all, file{name, data})
		}
	}
	return all, nil
}

// namesOf is a file, or the YAML files of a folder. Names that begin with a dot are left out: mounted volumes have such
// folders.
func namesOf(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return []string{path}, err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); (ext == ".yaml" || ext == ".yml") && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, filepath.Join(path, e.Name()))
		}
	}
	switch {
	case len(names) == 0:
		return nil, fmt.Errorf("%s: no file ends in .yaml or .yml", path)
	case len(names) > maxFiles:
		return nil, fmt.Errorf("%s: over %d files", path, maxFiles)
	}
	slices.Sort(names)
	return names, nil
}

func sum(files []file, err error) digest {
	h := sha256.New()
	if err != nil {
		fmt.Fprintf(h, "error %v", err)
	}
	for _, f := range files {
		fmt.Fprintf(h, "%s %d ", f.name, len(f.data))
		h.Write(f.data)
	}
	return digest(h.Sum(nil))
}

// certificates are the server's own, and the authorities of clients.
type certificates struct {
	mutual bool
	inUse  atomic.Pointer[tls.Config]
}

func (c *certificates) load(files []file) error {
	pair, err := tls.X509KeyPair(files[0].data, files[1].data)
	if err != nil {
		return fmt.Errorf("%s, %s: %w", files[0].name, files[1].name, err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if c.mutual {
		config.ClientCAs = x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(files[2].data) {
			return fmt.Errorf("%s: %w", files[2].name, errors.New("no certificate in it"))
		}
		// Health needs no certificate, so the handshake asks for one, and the endpoints insist.
		config.ClientAuth = tls.VerifyClientCertIfGiven
	}
	c.inUse.Store(config)
	return nil
}

// config is for a listener: each connection gets the certificates that are in use when it begins.
func (c *certificates) config(protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: protocols,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			config := c.inUse.Load().Clone()
			config.NextProtos = protocols
			return config, nil
		},
	}
}
