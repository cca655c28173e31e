package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/emerald-platform/emerald/lab"
)

// machine is a machine of the lab with Emerald on it.
type machine struct {
	*lab.Machine
	lab     *lab.Lab
	emerald string
	ready   time.Time // when everything was
}

// newMachine makes a machine with nothing on it, in a lab of its own.
func (b *bench) newMachine(ctx context.Context) (*machine, error) {
	l, err := lab.New(ctx)
	if err != nil {
		return nil, err
	}
	m, err := l.AddMachine("one")
	if err != nil {
		return nil, errors.Join(err, l.Close(ctx))
	}
	return &machine{Machine: m, lab: l, emerald: b.emerald}, nil
}

func (m *machine) close(ctx context.Context) error { return m.lab.Close(context.WithoutCancel(ctx)) }

// bootedMachine returns the machine that the sections share, booting it for
// the first that asks.
func (b *bench) bootedMachine(ctx context.Context) (*machine, error) {
	if b.machine != nil {
		return b.machine, nil
	}
	m, err := b.newMachine(ctx)
	if err != nil {
		return nil, err
	}
	b.machine = m
	if _, err := m.boot(ctx); err != nil {
		return nil, err
	}
	return m, nil
}

// leaveMachine removes the shared machine, if there is one.
func (b *bench) leaveMachine(ctx context.Context) error {
	if b.machine == nil {
		return nil
	}
	m := b.machine
	b.machine = nil
	return m.close(ctx)
}

// command returns `emerald ARGS` on the machine, and where its output goes.
func (m *machine) command(ctx context.Context, args ...string) (*exec.Cmd, *bytes.Buffer) {
	cmd := m.Command(ctx, m.emerald, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	return cmd, &out
}

// run runs `emerald ARGS` on the machine.
func (m *machine) run(ctx context.Context, args ...string) (string, error) {
	cmd, out := m.command(ctx, args...)
	if err := m.Run(cmd); err != nil {
		return "", fmt.Errorf("emerald %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return out.String(), nil
}

// boot is how long after `emerald up` was typed things work.
type boot struct{ api, node, batteries time.Duration }

// boot runs `emerald up` and looks on from outside.
func (m *machine) boot(ctx context.Context) (boot, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	var took boot
	ended := make(chan error, 1)
	began := time.Now()
	go func() {
		_, err := m.run(ctx, append([]string{"up"}, m.UpFlags()...)...)
		m.ready = time.Now()
		if err != nil {
			cancel() // nobody needs to wait any longer
		}
		ended <- err
	}()
	err := m.untilAPI(ctx)
	took.api = time.Since(began)
	if err == nil {
		err = m.untilNode(ctx)
		took.node = time.Since(began)
	}
	if upErr := <-ended; upErr != nil {
		return took, upErr
	}
	took.batteries = m.ready.Sub(began)
	return took, err
}

// untilAPI returns when the machine's API server says that it is ready. It is
// the one client for all API servers: it asks every ten milliseconds.
func (m *machine) untilAPI(ctx context.Context) error {
	client := &http.Client{
		Timeout: time.Second,
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // who answers is not the question
		},
	}
	defer client.CloseIdleConnections()
	url := "https://" + net.JoinHostPort(m.Address.String(), "6443") + "/readyz"
	return poll(ctx, 10*time.Millisecond, func() bool {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return false
		}
		resp, err := client.Do(req)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// untilNode returns when the machine's node is Ready.
func (m *machine) untilNode(ctx context.Context) error {
	cfg, err := m.Kube()
	if err != nil {
		return err
	}
	cfg.QPS = -1
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return err
	}
	return poll(ctx, 20*time.Millisecond, func() bool {
		node, err := client.CoreV1().Nodes().Get(ctx, m.Name, metav1.GetOptions{})
		if err != nil {
			return false
		}
		for _, c := range node.Status.Conditions {
			if c.Type == "Ready" && c.Status == "True" {
				return true
			}
		}
		return false
	})
}

// poll asks until the answer is yes, or ctx ends.
func poll(ctx context.Context, every time.Duration, done func() bool) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}
