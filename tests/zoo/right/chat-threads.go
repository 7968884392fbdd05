// contract: chat
// language: Go
// packages: golang-go
// build: CGO_ENABLED=0 go build -o {out} {file}
// start: {out} {host} {port}
// dialect: it puts the sender's address before each line: `127.0.0.1:40000: hello`
package main

import (
	"bytes"
	"io"
	"log"
	"net"
	"os"
	"sync"
	"time"
)

const (
	maxLine    = 64 << 10
	maxPending = 4 << 20         // kept for a client that does not read
	patience   = 3 * time.Second // for a leaver to take what it is owed and to close
)

var (
	room    sync.Mutex // guards all that follows, and the fields of every client
	clients = map[*client]bool{}
)

type client struct {
	conn    *net.TCPConn
	name    []byte
	wake    *sync.Cond
	pending net.Buffers
	size    int // of what is pending, and of what the writer is sending just now
	gone    bool
}

// owe must be called with the room locked. It never waits.
func (c *client) owe(block []byte) {
	if c.size+len(block) > maxPending {
		c.drop()
		return
	}
	c.size += len(block)
	c.pending = append(c.pending, block)
	c.wake.Signal()
}

func (c *client) drop() {
	c.conn.SetLinger(0) // RST: what the kernel still keeps for it is freed, too
	c.conn.Close()
	c.leave()
	c.pending = nil
}

func (c *client) leave() {
	c.gone = true
	delete(clients, c)
	c.wake.Signal()
}

func say(block []byte) {
	if len(block) == 0 {
		return
	}
	room.Lock()
	defer room.Unlock()
	for c := range clients {
		c.owe(block)
	}
}

// speak is the only one that writes to this connection.
func (c *client) speak(done chan<- bool) {
	defer close(done)
	for {
		room.Lock()
		for len(c.pending) == 0 && !c.gone {
			c.wake.Wait()
		}
		blocks := c.pending
		c.pending = nil
		room.Unlock()
		if len(blocks) == 0 {
			c.conn.CloseWrite()
			return
		}
		sent, err := blocks.WriteTo(c.conn)
		room.Lock()
		c.size -= int(sent)
		if err != nil {
			c.leave()
			c.pending = nil
			room.Unlock()
			return
		}
		room.Unlock()
	}
}

// hear returns at FIN, RST, quit or a line that is too long, with what is to be said about it.
func (c *client) hear() (parting string) {
	buffer := make([]byte, 0, maxLine+2) // a line, "\r" and "\n"
	for {
		n, err := c.conn.Read(buffer[len(buffer):cap(buffer)])
		buffer = buffer[:len(buffer)+n]
		var block []byte
		rest := buffer
		for {
			end := bytes.IndexByte(rest, '\n')
			if end < 0 {
				break
			}
			line := bytes.TrimSuffix(rest[:end], []byte("\r"))
			if string(line) == "quit" {
				say(block)
				return ""
			}
			if len(line) > maxLine {
				say(block)
				return "error: line too long\n"
			}
			if len(line) > 0 {
				block = append(append(append(block, c.name...), line...), '\n')
			}
			rest = rest[end+1:]
		}
		if err != nil {
			if len(rest) > 0 && err == io.EOF {
				block = append(append(append(block, c.name...), rest...), '\n')
			}
			say(block)
			return ""
		}
		say(block)
		buffer = buffer[:copy(buffer[:cap(buffer)], rest)]
		if len(buffer) == cap(buffer) {
			return "error: line too long\n"
		}
	}
}

func (c *client) serve() {
	done := make(chan bool)
	go c.speak(done)
	parting := c.hear()
	room.Lock()
	if parting != "" && !c.gone {
		c.owe([]byte(parting))
	}
	c.leave()
	room.Unlock()
	// What it is owed goes out, then our FIN; until its own FIN we read on, since close() with unread input
	// would be RST.
	c.conn.SetDeadline(time.Now().Add(patience))
	<-done
	ignored := make([]byte, 64<<10)
	for err := error(nil); err == nil; {
		_, err = c.conn.Read(ignored)
	}
	c.conn.Close()
}

func main() {
	if len(os.Args) != 3 {
		log.Fatalf("usage: %s HOST PORT", os.Args[0])
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(os.Args[1], os.Args[2]))
	if err != nil {
		log.Fatal(err)
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Print(err) // no descriptor is free, mostly
			time.Sleep(50 * time.Millisecond)
			continue
		}
		c := &client{conn: conn.(*net.TCPConn), name: []byte(conn.RemoteAddr().String() + ": "), wake: sync.NewCond(&room)}
		room.Lock()
		clients[c] = true
		room.Unlock()
		go c.serve()
	}
}
