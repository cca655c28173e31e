package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// load is what one drive asks for.
type load struct {
	Address     string        `json:"address"`
	TLS         bool          `json:"tls"`
	Routes      int           `json:"routes"`
	Connections int           `json:"connections"`
	Threads     int           `json:"threads"`
	Duration    time.Duration `json:"duration"`
}

// outcome is what it found. A request that did not end as it should ends the
// drive with an error instead.
type outcome struct {
	Requests int     `json:"requests"`
	Seconds  float64 `json:"seconds"`
	P50      float64 `json:"p50"` // milliseconds
	P99      float64 `json:"p99"`
}

// runLoad is the process that asks: it reads a load and prints its outcome. Like
// the backend it does as little as can be done per request, so that the proxy is
// what is measured: threads on epoll(7), requests made beforehand, and of the
// responses no more is read than their status and length.
func runLoad(raw string, out io.Writer) error {
	var l load
	if err := json.Unmarshal([]byte(raw), &l); err != nil {
		return fmt.Errorf("read the load: %w", err)
	}
	// What little is allocated is by TLS.
	debug.SetGCPercent(1000)
	threads := make([]*asker, l.Threads)
	for i := range threads {
		var err error
		if threads[i], err = newAsker(l, i); err != nil {
			return err
		}
	}
	began := time.Now()
	errs := make([]error, l.Threads)
	var all sync.WaitGroup
	for i, a := range threads {
		all.Go(func() { errs[i] = a.run(began.Add(l.Duration)) })
	}
	all.Wait()
	took := time.Since(began)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	var latencies []uint32
	for _, a := range threads {
		latencies = append(latencies, a.latencies...)
	}
	if len(latencies) == 0 {
		return errors.New("no request was answered")
	}
	slices.Sort(latencies)
	at := func(part float64) float64 { return float64(latencies[int(part*float64(len(latencies)-1))]) / 1000 }
	return json.NewEncoder(out).Encode(outcome{Requests: len(latencies), Seconds: took.Seconds(), P50: at(0.5), P99: at(0.99)})
}

// requests returns one request per route and path, in an order that is shuffled
// and always the same.
func requests(routes int, seed uint64) [][]byte {
	var out [][]byte
	for i := range routes {
		for _, path := range []string{"/", "/api/items"} {
			out = append(out, fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: app-%d.example.org\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n", path, i))
		}
	}
	r := rand.New(rand.NewPCG(1, seed))
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// asker is one thread with some connections.
type asker struct {
	epoll     int
	clients   map[int32]*client
	requests  [][]byte
	at        int
	latencies []uint32 // microseconds
}

// client is one connection. It asks, waits for the whole answer, asks again.
type client struct {
	fd     int
	secure *tls.Conn // nil for plain text
	in     []byte
	have   int
	asked  time.Time
}

func newAsker(l load, index int) (*asker, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	a := &asker{epoll: epoll, clients: map[int32]*client{}, requests: requests(l.Routes, uint64(index))}
	for range max(1, l.Connections/l.Threads) {
		c, err := connect(l)
		if err != nil {
			return nil, fmt.Errorf("connect to the proxy: %w", err)
		}
		event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(c.fd)}
		if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, c.fd, &event); err != nil {
			return nil, err
		}
		a.clients[int32(c.fd)] = c
	}
	return a, nil
}

// connect makes a connection, handshake included.
func connect(l load) (*client, error) {
	conn, err := net.Dial("tcp", l.Address)
	if err != nil {
		return nil, err
	}
	file, err := conn.(*net.TCPConn).File()
	conn.Close() // the file has a descriptor of its own
	if err != nil {
		return nil, err
	}
	defer file.Close()
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	c := &client{fd: fd, in: make([]byte, 16<<10)}
	if err := unix.SetNonblock(fd, false); err != nil {
		return nil, err
	}
	if l.TLS {
		c.secure = tls.Client(descriptor(fd), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}})
		if err := c.secure.Handshake(); err != nil {
			return nil, err
		}
		// All are to do the same work.
		if suite := c.secure.ConnectionState().CipherSuite; suite != tls.TLS_AES_128_GCM_SHA256 {
			return nil, fmt.Errorf("it encrypts with %s, not with TLS_AES_128_GCM_SHA256 as the others", tls.CipherSuiteName(suite))
		}
	}
	return c, unix.SetNonblock(fd, true)
}

// run asks until the time is over.
func (a *asker) run(until time.Time) error {
	for _, c := range a.clients {
		if err := a.ask(c, time.Now()); err != nil {
			return err
		}
	}
	events := make([]unix.EpollEvent, len(a.clients))
	for {
		n, err := unix.EpollWait(a.epoll, events, 1000)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		now := time.Now()
		if now.After(until) {
			return nil
		}
		for _, e := range events[:max(n, 0)] {
			c := a.clients[e.Fd]
			whole, err := c.receive()
			if err != nil {
				return err
			}
			if !whole {
				continue
			}
			now := time.Now()
			a.latencies = append(a.latencies, uint32(now.Sub(c.asked).Microseconds()))
			if err := a.ask(c, now); err != nil {
				return err
			}
		}
	}
}

// ask sends the next request.
func (a *asker) ask(c *client, now time.Time) error {
	request := a.requests[a.at]
	a.at = (a.at + 1) % len(a.requests)
	c.asked = now
	var err error
	if c.secure != nil {
		_, err = c.secure.Write(request)
	} else {
		_, err = descriptor(c.fd).Write(request)
	}
	if err != nil {
		return fmt.Errorf("send a request: %w", err)
	}
	return nil
}

// receive reads what has come; true when the response is whole.
func (c *client) receive() (bool, error) {
	for {
		var n int
		var err error
		if c.secure != nil {
			n, err = c.secure.Read(c.in[c.have:])
		} else {
			n, err = descriptor(c.fd).Read(c.in[c.have:])
		}
		if errors.Is(err, unix.EAGAIN) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("receive a response: %w", err)
		}
		c.have += n
		length, err := responseLength(c.in[:c.have])
		if err != nil {
			return false, err
		}
		if length > 0 && c.have >= length {
			if c.have > length {
				return false, fmt.Errorf("%d bytes follow a response", c.have-length)
			}
			c.have = 0
			return true, nil
		}
		if c.have == len(c.in) {
			return false, errors.New("a response is longer than 16 KiB")
		}
		if c.secure == nil {
			return false, nil // epoll says when there is more
		}
	}
}

// responseLength returns the length of a response whose head is whole, else 0.
// Anything but a 200 with a length is an error.
func responseLength(data []byte) (int, error) {
	end := bytes.Index(data, endOfHead)
	if end < 0 {
		return 0, nil
	}
	head := data[:end]
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) {
		return 0, fmt.Errorf("the answer is %q", head)
	}
	const name = "content-length: "
	at := bytes.Index(head, []byte("\nContent-Length: "))
	if at < 0 {
		at = bytes.Index(head, []byte("\n"+name))
	}
	if at < 0 {
		return 0, fmt.Errorf("the answer has no length: %q", head)
	}
	value := head[at+1+len(name):]
	if eol := bytes.IndexByte(value, '\r'); eol >= 0 {
		value = value[:eol]
	}
	body, err := strconv.Atoi(string(value))
	if err != nil {
		return 0, fmt.Errorf("the answer's length is %q", value)
	}
	return end + len(endOfHead) + body, nil
}

// descriptor is a socket as TLS wants it. Where a read would wait it returns
// EAGAIN, after which TLS lets one try again.
type descriptor int

func (d descriptor) Read(p []byte) (int, error) {
	n, err := unix.Read(int(d), p)
	if err == nil && n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return max(n, 0), err
}

func (d descriptor) Write(p []byte) (int, error) {
	n, err := unix.Write(int(d), p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite // a request fits the socket's buffer
	}
	return max(n, 0), err
}

func (d descriptor) Close() error                     { return unix.Close(int(d)) }
func (d descriptor) LocalAddr() net.Addr              { return nil }
func (d descriptor) RemoteAddr() net.Addr             { return nil }
func (d descriptor) SetDeadline(time.Time) error      { return nil }
func (d descriptor) SetReadDeadline(time.Time) error  { return nil }
func (d descriptor) SetWriteDeadline(time.Time) error { return nil }

// drive asks one proxy for all routes, as fast as it answers, from a process of
// its own.
func (s *stage) drive(ctx context.Context, p *running, scheme string, d time.Duration) (outcome, error) {
	l := load{Address: p.address(scheme), TLS: scheme == "https", Routes: s.routes, Connections: connections, Duration: d,
		Threads: max(1, min(s.cores.loadSet.Count()-1, 4))}
	raw, err := json.Marshal(l)
	if err != nil {
		return outcome{}, err
	}
	self, err := os.Executable()
	if err != nil {
		return outcome{}, err
	}
	cmd := s.machine.Command(ctx, self, "-load", string(raw))
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := s.startOn(cmd, &s.cores.loadSet); err != nil {
		return outcome{}, err
	}
	if err := cmd.Wait(); err != nil {
		return outcome{}, fmt.Errorf("drive %s over %s with %d routes: %w: %s\n%s", p.name, scheme, s.routes, err, strings.TrimSpace(problems.String()), tail(p.log))
	}
	var o outcome
	if err := json.Unmarshal(out.Bytes(), &o); err != nil {
		return o, fmt.Errorf("drive %s: it said %q", p.name, out.String())
	}
	return o, nil
}
