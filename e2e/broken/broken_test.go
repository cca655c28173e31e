//go:build e2e

// Package broken shows that every proof of every battery can fail: it breaks
// what a claim promises as an operator might by mistake, so that the platform
// cannot mend it by itself, and wants just the claims that depend on it to fail,
// with a cause that leads to the mistake. What is healed holds again.
//
// Breaks that do not touch each other are made together, since a run of all the
// proofs takes half a minute.
package broken

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/emerald-platform/emerald/e2e/fixture"
)

// patience is how long each proof may take here. Those that hold take seconds;
// it bounds those that wait for what will not come.
const patience = time.Minute

// broke is one mistake. Claims are named by words that only they have.
type broke struct {
	mistake string
	// make makes it, waits until it has its effect, and returns what undoes it
	// and waits again.
	make func(*world) (heal func())
	// fails are the claims that do not hold then, with a pattern that the cause
	// matches.
	fails map[string]string
}

// world is the one machine of this test.
type world struct {
	*fixture.Machine
	t      *testing.T
	kube   kubernetes.Interface
	tables int // of nftables, made so far
}

func TestEveryProofCanFail(t *testing.T) {
	m := fixture.Boot(t)
	w := &world{Machine: m, t: t, kube: m.Client()}
	w.prepare()

	seen := map[string]bool{}
	for i, round := range [][]broke{
		{tcpBlocked, policyExempt, catchAll, overwideRole, oneVersion},
		{resolverBlocked, keysFrozen, authorityReplaced, builderUnplaced, routesForbidden},
		{dnsDeaf, gatewayDeaf, diskReadOnly, keysForbidden},
	} {
		wanted := map[string]string{}
		var heals []func()
		var mistakes []string
		for _, b := range round {
			mistakes = append(mistakes, b.mistake)
			heals = append(heals, b.make(w))
			for words, cause := range b.fails {
				wanted[words] = strings.TrimPrefix(wanted[words]+"|"+cause, "|")
			}
		}
		t.Logf("round %d: %s", i+1, strings.Join(mistakes, "; "))
		for _, claim := range w.Verify("--timeout", patience.String()) {
			cause, fails := find(wanted, claim.Claim)
			switch {
			case fails && claim.Passed:
				t.Errorf("round %d: holds all the same: %s", i+1, claim.Claim)
			case !fails && !claim.Passed:
				t.Errorf("round %d: does not hold, though nothing it needs was broken: %s: %s", i+1, claim.Claim, claim.Cause)
			case fails && len(claim.Next) == 0:
				t.Errorf("round %d: nothing is said of what to type when this fails: %s", i+1, claim.Claim)
			case fails && !regexp.MustCompile(cause).MatchString(claim.Cause):
				t.Errorf("round %d: %s: the cause %q does not tell of %q", i+1, claim.Claim, claim.Cause, cause)
			}
			if late := claim.Seconds - patience.Seconds(); late > 5 {
				t.Errorf("round %d: took %.0fs longer than it may: %s", i+1, late, claim.Claim)
			}
			if !claim.Passed {
				t.Logf("%.1fs: %s: %s", claim.Seconds, claim.Claim, claim.Cause)
				seen[claim.Claim] = true
			}
		}
		slices.Reverse(heals)
		for _, heal := range heals {
			heal()
		}
	}
	w.holds(seen)
	m.Emerald("down", "--wipe", "--yes")
}

// find returns the pattern of the entry whose words are in the claim.
func find(wanted map[string]string, claim string) (string, bool) {
	for words, cause := range wanted {
		if strings.Contains(claim, words) {
			return cause, true
		}
	}
	return "", false
}

// holds wants every claim to hold, and to be one of those that failed before.
func (w *world) holds(seen map[string]bool) {
	var last error
	w.Eventually("every claim holds again", 3*time.Minute, func(context.Context) error {
		last = nil
		for _, claim := range w.Verify("--timeout", patience.String()) {
			if !seen[claim.Claim] {
				w.t.Errorf("nothing breaks it: %s", claim.Claim)
			}
			if !claim.Passed {
				last = errors.Join(last, fmt.Errorf("%s: %s", claim.Claim, claim.Cause))
			}
		}
		return last
	})
}

// eventually is Eventually with a deadline for what takes seconds.
func (w *world) eventually(what string, check func(context.Context) error) {
	w.t.Helper()
	w.Eventually(what, time.Minute, check)
}

// kubectl runs the embedded kubectl and wants it to succeed.
func (w *world) kubectl(args ...string) string {
	w.t.Helper()
	return w.Emerald(append([]string{"kubectl"}, args...)...)
}

// refused is a check that kubectl fails with this in its message.
func (w *world) refused(message string, args ...string) error {
	out, errOut, err := w.Try(append([]string{"kubectl"}, args...)...)
	if err == nil || !strings.Contains(errOut, message) {
		return fmt.Errorf("kubectl %s: want %q, got %s%s", strings.Join(args, " "), message, out, cmp.Or(errOut, "success"))
	}
	return nil
}

// accepted is the opposite of refused.
func (w *world) accepted(args ...string) error {
	_, errOut, err := w.Try(append([]string{"kubectl"}, args...)...)
	if err != nil {
		return fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, errOut)
	}
	return nil
}
