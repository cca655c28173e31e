package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// answer is what every backend answers to every request.
var answer = func() []byte {
	body := strings.Repeat("All work and no play makes a dull benchmark.\n", 23)[:1024]
	return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}()

// endOfHead is also the end of a request: the load has no bodies.
var endOfHead = []byte("\r\n\r\n")

// serveBackend answers every request with the same kibibyte until ctx ends. It
// shares a core with the load, so it does as little as can be done: one thread
// on epoll(7), which reads no more of a request than where it ends.
func serveBackend(ctx context.Context, address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen as the backend: %w", err)
	}
	defer l.Close()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	defer file.Close()
	s := &backend{listener: int(file.Fd()), in: make([]byte, 64<<10), rest: map[int32][]byte{}}
	if s.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("serve as the backend: %w", err)
	}
	defer unix.Close(s.epoll)
	if err := s.watch(s.listener); err != nil {
		return err
	}
	events := make([]unix.EpollEvent, 256)
	for ctx.Err() == nil {
		n, err := unix.EpollWait(s.epoll, events, 1000)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("serve as the backend: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			if int(e.Fd) == s.listener {
				s.accept()
			} else if !s.answer(e.Fd) {
				delete(s.rest, e.Fd)
				unix.Close(int(e.Fd))
			}
		}
	}
	return nil
}

// backend is the state of serveBackend.
type backend struct {
	epoll, listener int
	in              []byte
	rest            map[int32][]byte // of connections whose last request is not whole
}

func (s *backend) watch(fd int) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, fd, &event))
}

func (s *backend) accept() {
	fd, _, err := unix.Accept4(s.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	if err != nil {
		return // the client has gone again
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if s.watch(fd) != nil {
		unix.Close(fd)
	}
}

// answer reads what a connection has and answers the requests that are whole;
// false when the connection is over.
func (s *backend) answer(fd int32) bool {
	n, err := unix.Read(int(fd), s.in)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return true
	}
	if err != nil || n == 0 {
		return false
	}
	data := s.in[:n]
	if rest := s.rest[fd]; rest != nil {
		data = append(rest, data...)
		delete(s.rest, fd)
	}
	for {
		_, after, whole := bytes.Cut(data, endOfHead)
		if !whole {
			break
		}
		data = after
		// An answer fits the socket's buffer; where it does not, the peer has
		// stopped reading and is dropped.
		if n, err := unix.Write(int(fd), answer); err != nil || n != len(answer) {
			return false
		}
	}
	if len(data) > 0 {
		s.rest[fd] = bytes.Clone(data)
	}
	return true
}
