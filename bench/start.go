package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// start measures how long it takes from an empty data directory until things
// work, beside upstream's etcd and kube-apiserver alone.
func (b *bench) start(ctx context.Context) (*report, error) {
	b.say("building upstream's etcd and kube-apiserver")
	etcd, err := b.build(ctx, ".", "etcd", "go.etcd.io/etcd/server/v3", "-s -w")
	if err != nil {
		return nil, err
	}
	apiserver, err := b.build(ctx, ".", "kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", "-s -w")
	if err != nil {
		return nil, err
	}
	var bare, api, node, batteries series
	for i := range b.runs {
		took, err := b.bareStart(ctx, etcd, apiserver)
		if err != nil {
			return nil, err
		}
		bare = append(bare, took.Seconds())
		// Of the machines, the last one stays for the other sections.
		if err := b.leaveMachine(ctx); err != nil {
			return nil, err
		}
		m, err := b.newMachine(ctx)
		if err != nil {
			return nil, err
		}
		b.machine = m
		up, err := m.boot(ctx)
		if err != nil {
			return nil, err
		}
		api = append(api, up.api.Seconds())
		node = append(node, up.node.Seconds())
		batteries = append(batteries, up.batteries.Seconds())
		b.say("start %d of %d: upstream's API %.2f s; Emerald's API %.2f s, node %.2f s, batteries %.2f s",
			i+1, b.runs, bare[i], api[i], node[i], batteries[i])
	}
	r := new(report)
	r.say("Medians of %d alternating runs, beside etcd %s and kube-apiserver %s.", b.runs,
		b.moduleVersion(ctx, ".", "go.etcd.io/etcd/server/v3"), b.moduleVersion(ctx, ".", "k8s.io/kubernetes"))
	ratio := api.over(bare).median()
	row := func(what string, s series, most float64) []string {
		goal := r.goal(s.median() <= most, what, seconds(s.median()), fmt.Sprintf("≤ %.0f s", most))
		return []string{what, seconds(s.median()), s.spread(" s"), "", "", "", goal}
	}
	r.table([]string{"from an empty data directory until", "Emerald", "smallest–largest", "upstream, bare", "smallest–largest", "Emerald ÷ upstream", "goal"}, [][]string{
		{"the API is ready", seconds(api.median()), api.spread(" s"), seconds(bare.median()), bare.spread(" s"), times(ratio),
			r.goal(ratio <= 1.2, "the API is ready", times(ratio)+" of upstream's time", "≤ 1.2×")},
		row("the node is Ready", node, 6),
		row("every battery is ready", batteries, 20),
	})
	return r, nil
}

// bareStart starts etcd and kube-apiserver at once, as two processes with what
// upstream demands and no more, and returns how long it took until the API was
// ready.
func (b *bench) bareStart(ctx context.Context, etcd, apiserver string) (took time.Duration, err error) {
	m, err := b.newMachine(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, m.close(ctx)) }()
	dir := m.Dirs.Data
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return 0, err
	}
	key := filepath.Join(dir, "service-accounts.key")
	if err := writeServiceAccountKey(key); err != nil {
		return 0, err
	}
	const client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	commands := []*exec.Cmd{
		m.Command(ctx, etcd, "--data-dir="+filepath.Join(dir, "etcd"), "--listen-client-urls="+client, "--advertise-client-urls="+client,
			"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer),
		m.Command(ctx, apiserver, "--etcd-servers="+client, "--secure-port=6443", "--advertise-address="+m.Address.String(),
			"--cert-dir="+filepath.Join(dir, "certs"), "--service-cluster-ip-range=10.43.0.0/16", "--authorization-mode=Node,RBAC",
			"--service-account-issuer=https://kubernetes.default.svc", "--service-account-signing-key-file="+key, "--service-account-key-file="+key),
	}
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	logs := make([]bytes.Buffer, len(commands))
	began := time.Now()
	for i, cmd := range commands {
		cmd.Stdout, cmd.Stderr = &logs[i], &logs[i]
		running.Go(func() {
			// It ends when it is killed, or too early, which the wait shows.
			_ = m.Run(cmd)
			cancel()
		})
	}
	err = m.untilAPI(ctx)
	took = time.Since(began)
	if err != nil {
		cancel()
		running.Wait()
		return 0, fmt.Errorf("start upstream's API server: %w\n%s\n%s", err, tail(&logs[0]), tail(&logs[1]))
	}
	return took, nil
}

func writeServiceAccountKey(path string) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	return os.WriteFile(path, block, 0o600)
}

// tail returns the last lines of a log.
func tail(log *bytes.Buffer) string {
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}
