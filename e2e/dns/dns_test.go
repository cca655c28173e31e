//go:build e2e

// Package dns shows that the proofs of the dns battery hold on a machine, and
// fail when nobody can ask the server.
package dns

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/emerald-platform/emerald/e2e/fixture"
)

func TestProofs(t *testing.T) {
	m := fixture.Boot(t)
	for _, claim := range verify(t, m) {
		if !claim.Passed {
			t.Errorf("does not hold: %s: %s", claim.Claim, claim.Error)
		}
	}

	// The server is well; its questions do not reach it.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, args := range [][]string{
		{"add", "table", "inet", "deaf"},
		{"add", "chain", "inet", "deaf", "forward", "{ type filter hook forward priority 0; }"},
		{"add", "rule", "inet", "deaf", "forward", "meta l4proto { tcp, udp } th dport 1053 drop"},
	} {
		if err := m.Run(m.Command(ctx, "nft", args...)); err != nil {
			t.Fatalf("nft %v: %v", args, err)
		}
	}
	for _, claim := range verify(t, m) {
		if claim.Passed {
			t.Errorf("holds though nobody can ask: %s", claim.Claim)
		}
	}
	m.Emerald("down", "--wipe", "--yes")
}

// result is one line of `emerald verify -o json`.
type result struct {
	Claim  string `json:"claim"`
	Passed bool   `json:"passed"`
	Error  string `json:"error"`
}

// verify runs the proofs of dns and returns what they said.
func verify(t *testing.T, m *fixture.Machine) []result {
	t.Helper()
	// It fails when a claim does not hold, and prints all the same.
	out, errOut, _ := m.Try("verify", "dns", "-o", "json")
	var answer struct {
		Results []result `json:"results"`
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatalf("emerald verify: %v\n%s%s", err, out, errOut)
	}
	if len(answer.Results) == 0 {
		t.Fatalf("emerald verify proved nothing:\n%s%s", out, errOut)
	}
	return answer.Results
}
