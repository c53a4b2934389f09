package fault

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// proxy stands between one client and the server. It can drop what goes in either direction, as a
// firewall does: the connections stay open and nothing arrives.
type proxy struct {
	listener net.Listener

	dropToServer, dropToClient atomic.Bool
	mu                         sync.Mutex
	server                     string
	conns                      []net.Conn
}

func newProxy(t *testing.T, server string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener, server: server}
	t.Cleanup(func() { _ = listener.Close(); p.cut() })
	go p.serve()
	return p
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

func (p *proxy) serve() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		to := p.server
		p.mu.Unlock()
		server, err := net.Dial("unix", to)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, client, server)
		p.mu.Unlock()
		go p.copy(server, client, &p.dropToServer)
		go p.copy(client, server, &p.dropToClient)
	}
}

// copy forwards until an end is closed. What comes while drop is set waits, as unacknowledged packets
// do, and arrives when the partition heals.
func (p *proxy) copy(to, from net.Conn, drop *atomic.Bool) {
	defer func() { _ = to.Close(); _ = from.Close() }()
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		for drop.Load() {
			<-time.After(time.Millisecond)
		}
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// drop lets nothing through: 0 to the server, 1 to the client, 2 in both directions.
func (p *proxy) drop(kind int) {
	p.dropToServer.Store(kind != 1)
	p.dropToClient.Store(kind != 0)
}

// heal lets everything through.
func (p *proxy) heal() {
	p.dropToServer.Store(false)
	p.dropToClient.Store(false)
}

// redirect cuts every connection, and makes new ones with another server.
func (p *proxy) redirect(server string) {
	p.mu.Lock()
	p.server = server
	p.mu.Unlock()
	p.cut()
}

// cut closes every connection.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}
