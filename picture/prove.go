package picture

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emerald-platform/emerald/battery"
)

// Case is a proof to be run, and where.
type Case struct {
	Battery string
	Proof   battery.Proof
	// Site of the battery whose proof it is. Kube is that of whoever asks.
	Site battery.Site
}

// Result is what is known of one proof.
type Result struct {
	Feature string `json:"feature"`
	Battery string `json:"battery"`
	Claim   string `json:"claim"`
	// Passed is true when the claim held. Cause says why it did not; a proof
	// with neither was never run.
	Passed bool   `json:"passed"`
	Cause  string `json:"cause,omitempty"`
	// Version of the platform, and Time, of the run. Seconds it took.
	Version string    `json:"version,omitempty"`
	Time    time.Time `json:"time,omitzero"`
	Seconds float64   `json:"seconds,omitempty"`
}

// is tells whether two results are of the same proof.
func (r Result) is(o Result) bool {
	return r.Feature == o.Feature && r.Battery == o.Battery && r.Claim == o.Claim
}

// Cases returns the proofs of the batteries that have a site, in the order of
// the picture. Of each battery's Site only Kube and Log are set here.
func Cases(all []battery.Battery, sites map[string]battery.Site) []Case {
	var out []Case
	for _, r := range Rows() {
		for _, b := range all {
			site, on := sites[b.Name]
			for _, p := range b.Proofs {
				if on && p.Feature == r.Feature {
					out = append(out, Case{Battery: b.Name, Proof: p, Site: site})
				}
			}
		}
	}
	return out
}

// Choose returns the cases that the words ask for: a feature, its number, or a
// battery; several words are one feature when they name one together. No words
// choose all. Words that name nothing are an error, which says what there is.
func Choose(cases []Case, words []string) ([]Case, error) {
	if len(words) == 0 {
		return cases, nil
	}
	if got := choose(cases, strings.Join(words, " ")); len(got) > 0 {
		return got, nil
	}
	var out []Case
	var errs []error
	for _, w := range words {
		got := choose(cases, w)
		if len(got) == 0 {
			errs = append(errs, fmt.Errorf("there is no proof of %q: there are proofs of %s", w, strings.Join(features(cases), ", ")))
		}
		out = append(out, got...)
	}
	return out, errors.Join(errs...)
}

func choose(cases []Case, word string) []Case {
	word = strings.ToLower(strings.TrimSpace(word))
	numbers := map[string]string{}
	for _, r := range Rows() {
		numbers[r.Feature] = fmt.Sprint(r.Number)
	}
	var out []Case
	for _, c := range cases {
		if word == strings.ToLower(c.Proof.Feature) || word == c.Battery || word == numbers[c.Proof.Feature] {
			out = append(out, c)
		}
	}
	return out
}

func features(cases []Case) []string {
	var out []string
	for _, c := range cases {
		if !slices.Contains(out, c.Proof.Feature) {
			out = append(out, c.Proof.Feature)
		}
	}
	return out
}

// errPanicked is a proof whose code is broken.
var errPanicked = errors.New("the proof's code panicked")

// Prove runs cases, all of them at the same time, each for at most the given
// time, and returns their results in the same order once the last has ended.
// When ctx ends they are told to clean up and end; those that had not passed by
// then have failed. done is called for each as soon as it has ended, never
// twice at once.
func Prove(ctx context.Context, cases []Case, version string, each time.Duration, log *slog.Logger, done func(Result)) []Result {
	results := make([]Result, len(cases))
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i, c := range cases {
		wg.Go(func() {
			r := prove(ctx, c, each, log)
			r.Version = version
			mu.Lock()
			defer mu.Unlock()
			results[i] = r
			if done != nil {
				done(r)
			}
		})
	}
	wg.Wait()
	return results
}

func prove(ctx context.Context, c Case, each time.Duration, log *slog.Logger) Result {
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, each, fmt.Errorf("it did not end within %v", each))
	defer cancel()
	c.Site.Log = log.With("battery", c.Battery, "proof", c.Proof.Claim)
	err := check(ctx, c)
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	r := Result{
		Feature: c.Proof.Feature, Battery: c.Battery, Claim: c.Proof.Claim, Passed: err == nil,
		Time: began.Truncate(time.Second), Seconds: time.Since(began).Seconds(),
	}
	if err != nil {
		r.Cause = err.Error()
	}
	return r
}

// check keeps one broken proof from hiding the results of the others.
func check(ctx context.Context, c Case) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v\n%s", errPanicked, p, debug.Stack())
		}
	}()
	return c.Proof.Check(ctx, c.Site)
}
