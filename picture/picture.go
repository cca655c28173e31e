// Package picture is the picture on the box: the 43 features a platform needs,
// and how far each of them is.
//
// It promises to show no feature as proven that was not proven on this very
// cluster with this very version, by every proof its batteries have. It refuses
// opinions: a state follows from the batteries, their readiness and the results
// of their proofs alone.
//
// Invariant: the rows never become fewer and never say less.
package picture

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/battery"
)

// State says how far a feature is.
type State string

// The states, from the best to the worst.
const (
	// Proven: every battery of the row is there, and every proof passed on this
	// cluster with this version.
	Proven State = "proven"
	// Ready: every battery of the row is ready and has proofs, but not all of
	// them have passed here yet.
	Ready State = "ready"
	// Partly: what there is works, but a part of the row is still to come.
	Partly State = "partly"
	// Missing: not yet.
	Missing State = "not yet"
	// Failed: a proof failed.
	Failed State = "failed"
)

// Entry is a row and its state.
type Entry struct {
	Row
	State State `json:"state"`
	// Note says why the state is no better; "" when it is Proven.
	Note string `json:"note,omitempty"`
	// Proofs are the claims that belong to the row, with what is known of them.
	Proofs []Result `json:"proofs,omitempty"`
}

// Validate reports every proof that names no row of the picture, joined. It is
// the part of battery.Validate that takes the rows.
func Validate(all []battery.Battery) error {
	known := map[string]bool{}
	for _, r := range Rows() {
		known[r.Feature] = true
	}
	var errs []error
	for _, b := range all {
		for i, p := range b.Proofs {
			if !known[p.Feature] {
				errs = append(errs, battery.Defect{
					Battery: b.Name, Field: fmt.Sprintf("Proofs[%d].Feature", i),
					Problem: fmt.Sprintf("is %q, which is no row of the picture", p.Feature),
				})
			}
		}
	}
	return errors.Join(errs...)
}

// Compute returns the state of every row: from the batteries there are, their
// state in the cluster, and what was proven there. Version is that of the
// platform; results of another one prove nothing.
func Compute(all []battery.Battery, states []v1alpha1.BatteryStatus, known Report, version string) []Entry {
	c := computation{all: all, states: map[string]v1alpha1.BatteryStatus{}, known: known, version: version}
	for _, s := range states {
		c.states[s.Name] = s
	}
	var out []Entry
	for _, r := range Rows() {
		out = append(out, c.entry(r))
	}
	return out
}

type computation struct {
	all     []battery.Battery
	states  map[string]v1alpha1.BatteryStatus
	known   Report
	version string
}

func (c *computation) entry(r Row) Entry {
	e := Entry{Row: r, Proofs: c.proofs(r.Feature)}
	carriers, missing := c.carriers(e)
	if len(carriers) == 0 {
		e.State, e.Note = Missing, "to come"
		return e
	}
	for _, name := range carriers {
		if s := c.states[name]; s.Phase != v1alpha1.PhaseReady {
			e.State, e.Note = Missing, c.reason(name)
			return e
		}
	}
	var open []string
	for _, p := range e.Proofs {
		switch {
		case p.Passed && p.Version == c.version:
		case p.Cause != "":
			e.State, e.Note = Failed, p.Cause
			return e
		case p.Passed:
			open = append(open, "proven with version "+p.Version+", not with this one")
		default:
			open = append(open, "not proven yet")
		}
	}
	if len(missing) > 0 {
		e.State, e.Note = Partly, "to come: "+strings.Join(missing, ", ")
		return e
	}
	e.State = Proven
	if len(open) > 0 {
		e.State, e.Note = Ready, open[0]
	}
	return e
}

// proofs returns the proofs of a feature with what is known of them.
func (c *computation) proofs(feature string) []Result {
	var out []Result
	for _, b := range c.all {
		for _, p := range b.Proofs {
			if p.Feature != feature {
				continue
			}
			r := Result{Feature: feature, Battery: b.Name, Claim: p.Claim}
			if i := slices.IndexFunc(c.known.Results, r.is); i >= 0 {
				r = c.known.Results[i]
			}
			out = append(out, r)
		}
	}
	return out
}

// carriers returns the batteries a row rests on that are there, and what of it
// is to come. What nobody offers to prove is not there.
func (c *computation) carriers(e Entry) (there, missing []string) {
	for _, p := range e.Proofs {
		if !slices.Contains(there, p.Battery) {
			there = append(there, p.Battery)
		}
	}
	if len(there) == 0 {
		return nil, nil
	}
	for _, name := range e.Batteries {
		switch {
		case name == platform || slices.Contains(there, name):
		case slices.ContainsFunc(c.all, func(b battery.Battery) bool { return b.Name == name }):
			there = append(there, name)
		default:
			missing = append(missing, name)
		}
	}
	if e.ToCome != "" {
		missing = append(missing, e.ToCome)
	}
	return there, missing
}

// reason says why a battery that is there is not ready.
func (c *computation) reason(name string) string {
	s, known := c.states[name]
	switch {
	case !known:
		return name + " is not installed"
	case s.Phase == v1alpha1.PhaseOff:
		return name + " is turned off"
	case s.Message == "":
		return name + " is " + strings.ToLower(string(s.Phase))
	}
	return name + ": " + s.Message
}
