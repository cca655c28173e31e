package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// cores says who runs where.
type cores struct {
	proxy, load         string
	proxySet, loadSet   unix.CPUSet
	microsecondsPerTick float64
}

// splitCores gives the proxy the last core that this process may use, and load
// and backend the others.
func splitCores() (cores, error) {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return cores{}, fmt.Errorf("find this machine's cores: %w", err)
	}
	var ids []int
	for id := range 8 * len(all) * 8 {
		if all.IsSet(id) {
			ids = append(ids, id)
		}
	}
	if len(ids) < 2 {
		return cores{}, errors.New("the proxies take two cores: one for the proxy, one for the load")
	}
	// proc_pid_stat(5) counts in USER_HZ, which is 100 on every architecture.
	c := cores{microsecondsPerTick: 1e4}
	var load []string
	for _, id := range ids[:len(ids)-1] {
		c.loadSet.Set(id)
		load = append(load, strconv.Itoa(id))
	}
	c.proxySet.Set(ids[len(ids)-1])
	c.proxy, c.load = strconv.Itoa(ids[len(ids)-1]), "core "+strings.Join(load, ", ")
	return c, nil
}

// startOn starts a command in the stage's network, on some cores only.
func (s *stage) startOn(cmd *exec.Cmd, on *unix.CPUSet) error {
	// The child inherits the thread's cores; the thread ends with Do, so that
	// nothing else runs there.
	return s.machine.Do(func() error {
		if err := unix.SchedSetaffinity(0, on); err != nil {
			return fmt.Errorf("choose the cores of %s: %w", cmd.Path, err)
		}
		return cmd.Start()
	})
}

// running is a server under way.
type running struct {
	candidate
	setup  setup
	cmd    *exec.Cmd
	log    *bytes.Buffer
	exited chan struct{}
}

// address is where a proxy answers.
func (r *running) address(scheme string) string {
	port := r.setup.plain
	if scheme == "https" {
		port = r.setup.secure
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

// stage is the backend and all proxies in front of it, with one number of
// routes. It stands on a machine of the lab with nothing else on it: in the
// host's own network each packet would pass the rules of whatever runs there.
type stage struct {
	bench   *bench
	machine *machine
	cores   cores
	routes  int
	backend *running
	proxies []*running
}

// setStage starts the backend and the proxies, and holds each to its routes.
func (b *bench) setStage(ctx context.Context, candidates []candidate, routes int, cert, key string, cores cores) (_ *stage, err error) {
	m, err := b.newMachine(ctx)
	if err != nil {
		return nil, err
	}
	s := &stage{bench: b, machine: m, cores: cores, routes: routes}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close(ctx))
		}
	}()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	const backend = "127.0.0.1:9000"
	if s.backend, err = s.start(candidate{name: "backend"}, setup{}, []string{self, "-backend", backend}, &s.cores.loadSet); err != nil {
		return nil, err
	}
	for i, c := range candidates {
		set := setup{routes: routes, plain: 8080 + i, secure: 8443 + i, backend: backend, cert: cert, key: key,
			folder: filepath.Join(b.work, fmt.Sprintf("%s-%d", c.name, routes))}
		if err := os.MkdirAll(set.folder, 0o755); err != nil {
			return nil, err
		}
		command, err := c.configure(set, c.program)
		if err != nil {
			return nil, fmt.Errorf("configure %s: %w", c.name, err)
		}
		p, err := s.start(c, set, command, &s.cores.proxySet)
		if err != nil {
			return nil, err
		}
		s.proxies = append(s.proxies, p)
	}
	for _, p := range s.proxies {
		if err := s.check(ctx, p); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// start starts a server in a process group of its own.
func (s *stage) start(c candidate, set setup, command []string, on *unix.CPUSet) (*running, error) {
	r := &running{candidate: c, setup: set, cmd: exec.Command(command[0], command[1:]...), log: new(bytes.Buffer), exited: make(chan struct{})}
	r.cmd.Stdout, r.cmd.Stderr = r.log, r.log
	r.cmd.Env = append(os.Environ(), "HOME="+s.bench.work, "XDG_DATA_HOME="+s.bench.work, "XDG_CONFIG_HOME="+s.bench.work)
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.startOn(r.cmd, on); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	go func() {
		defer close(r.exited)
		_ = r.cmd.Wait() // how it ends is seen by who uses it
	}()
	return r, nil
}

// close ends the servers and takes the machine away.
func (s *stage) close(ctx context.Context) error {
	var errs []error
	for _, r := range append(s.proxies, s.backend) {
		if r == nil {
			continue
		}
		if err := unix.Kill(-r.cmd.Process.Pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("end %s: %w", r.name, err))
			continue
		}
		<-r.exited
	}
	return errors.Join(append(errs, s.machine.close(ctx))...)
}

// check waits until the proxy answers, and holds it to its routes: the backend's
// answer for hosts it has, first and last, and not for one it lacks.
func (s *stage) check(ctx context.Context, r *running) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DialContext: s.machine.Dial,
	}}
	defer client.CloseIdleConnections()
	want := string(answer[bytes.Index(answer, endOfHead)+len(endOfHead):])
	get := func(scheme, host, path string) (bool, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+r.address(scheme)+path, nil)
		if err != nil {
			return false, err
		}
		req.Host = host
		resp, err := client.Do(req)
		if err != nil {
			return false, err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return resp.StatusCode == http.StatusOK && string(body) == want, err
	}
	var last error
	if err := poll(ctx, 20*time.Millisecond, func() bool {
		select {
		case <-r.exited:
			cancel()
		default:
		}
		_, err := get("http", "app-0.example.org", "/")
		_, secureErr := get("https", "app-0.example.org", "/")
		if ctx.Err() == nil {
			last = errors.Join(err, secureErr)
		}
		return last == nil
	}); err != nil {
		return fmt.Errorf("wait for %s: %w: %w\n%s", r.name, err, last, tail(r.log))
	}
	for _, scheme := range []string{"http", "https"} {
		for host, expected := range map[string]bool{
			"app-0.example.org": true, fmt.Sprintf("app-%d.example.org", r.setup.routes-1): true,
			fmt.Sprintf("app-%d.example.org", r.setup.routes): false,
		} {
			for _, path := range []string{"/", "/api/items"} {
				if got, err := get(scheme, host, path); err != nil || got != expected {
					return fmt.Errorf("%s forwards %s://%s%s: %t (%v), want %t\n%s", r.name, scheme, host, path, got, err, expected, tail(r.log))
				}
			}
		}
	}
	return nil
}

// measure drives every proxy in turn, round after round.
func (s *stage) measure(ctx context.Context, scheme string) (map[string]*figures, error) {
	found := map[string]*figures{}
	var candidates []candidate
	byName := map[string]*running{}
	for _, p := range s.proxies {
		found[p.name] = new(figures)
		byName[p.name] = p
		candidates = append(candidates, p.candidate)
		// Once for nothing: buffers grow, connections to the backend are made.
		if _, err := s.drive(ctx, p, scheme, time.Second); err != nil {
			return nil, err
		}
	}
	for round := range s.bench.rounds {
		for _, c := range interleave(candidates, round) {
			p, f := byName[c.name], found[c.name]
			before, err := p.ticks()
			if err != nil {
				return nil, err
			}
			o, err := s.drive(ctx, p, scheme, s.bench.round)
			if err != nil {
				return nil, err
			}
			after, err := p.ticks()
			if err != nil {
				return nil, err
			}
			used := float64(after-before) * s.cores.microsecondsPerTick
			f.rate = append(f.rate, float64(o.Requests)/o.Seconds)
			f.p99 = append(f.p99, o.P99)
			f.busy = append(f.busy, used/1e6/o.Seconds)
			f.cost = append(f.cost, used/float64(o.Requests))
		}
	}
	for _, p := range s.proxies {
		f := found[p.name]
		s.bench.say("%s, %d routes: %s %.0f requests/s, p99 %.2f ms, core %.0f %% busy", scheme, s.routes, p.name, f.rate.median(), f.p99.median(), 100*f.busy.median())
	}
	return found, nil
}

// ticks returns the processor time that the proxy's processes have used.
func (r *running) ticks() (int64, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		raw, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue // it has just ended
		}
		// proc_pid_stat(5): after the name come the state, the parent and the
		// process group; user and system time are the 12th and 13th.
		_, rest, _ := strings.Cut(string(raw), ") ")
		fields := strings.Fields(rest)
		if len(fields) < 13 || fields[2] != strconv.Itoa(r.cmd.Process.Pid) {
			continue
		}
		user, _ := strconv.ParseInt(fields[11], 10, 64)
		system, _ := strconv.ParseInt(fields[12], 10, 64)
		sum += user + system
	}
	return sum, nil
}

// makeCertificate writes the one certificate that all proxies serve.
func makeCertificate(dir string) (cert, key string, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", fmt.Errorf("make a key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "example.org"}, DNSNames: []string{"*.example.org"},
		// The load names no host in its handshakes; Caddy then looks for its
		// own address.
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:   time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return "", "", fmt.Errorf("make a certificate: %w", err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", "", err
	}
	cert, key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	return cert, key, errors.Join(
		os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), 0o600))
}
