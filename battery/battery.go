// Package battery is the contract between the platform and the pieces it is
// made of. A battery is one value of [Battery]: data and plain functions, no
// interface to implement and nothing to register.
//
// The contract promises that a battery which passes Validate can be rendered
// without a cluster, installed in the order of its Needs, run anywhere
// Kubernetes runs, and proven from outside. It refuses hidden state: everything
// a battery may know is in its [Site].
//
// Invariant: batteries meet only through the cluster's API. Nothing here lets
// one battery reach another battery's Go code.
package battery

import (
	"context"

	"github.com/emerald-platform/emerald/kit/kube"
)

// Battery is one piece of the platform.
//
// The zero value of every field but Name, Doc and Proofs is meaningful. A
// Battery is never modified after it was handed to the platform.
type Battery struct {
	// Name is one lowercase word. It is the folder, the package, the noun of
	// the command line, the namespace (emerald-<name>), the log attribute and
	// the metric prefix.
	Name string

	// Doc says in one sentence what the user gets.
	Doc string

	// Needs names the batteries that must be ready before this one starts.
	// Order comes from here alone, never from a position in a list.
	Needs []string

	// Where says who runs Run. The platform makes the workload.
	Where Place

	// Config is a struct value holding the defaults. The user's settings are
	// decoded strictly on top of a copy. Nil means the battery has no knobs.
	Config any

	// Manifests returns the objects the battery needs besides its workload:
	// its CRDs, roles, services, policies. It is pure: no I/O, no clock, no
	// randomness. The installer calls it whenever the Site may have changed
	// and applies the difference. The Site has no Kube, Log, Ready or Leave
	// here.
	//
	// To differ from the workload the platform makes, return a Deployment,
	// StatefulSet or DaemonSet that has the battery's name and only the fields
	// that differ; see [Complete].
	Manifests func(Site) ([]kube.Object, error)

	// Run does the battery's work. It is called once per process, blocks, and
	// returns nil when ctx ends, leaving no goroutine behind. A non-nil error
	// ends the process, which Kubernetes then restarts. It calls Site.Ready as
	// soon as it does its job. Nil means the battery has no process.
	Run func(context.Context, Site) error

	// Proofs show from outside that the battery gives what the picture
	// promises. They are run by `emerald verify`, by the end-to-end tests and
	// by the picture.
	Proofs []Proof
}

// Proof shows one feature of the picture at work, as its user would see it.
type Proof struct {
	// Feature names a row of the picture by its words, for example "DNS".
	Feature string

	// Claim is the sentence the user reads in `emerald verify`.
	Claim string

	// Check returns nil when the claim holds on the cluster of the Site. It
	// may be called at any time and concurrently with every other check,
	// removes what it made even when it fails or ctx ends, and also proves a
	// refusal: that what must not work does not.
	Check func(context.Context, Site) error
}

// Place says who runs a battery's Run.
type Place int

const (
	// Controllers runs it inside the one emerald-controllers process, on the
	// elected leader only, under the battery's own service account.
	Controllers Place = iota
	// Own gives the battery a workload of its own: it serves traffic or keeps
	// data.
	Own
	// EveryNode runs it inside the emerald-node process on every machine.
	EveryNode
)

// String returns the word shown by `emerald batteries`.
func (p Place) String() string {
	switch p {
	case Controllers:
		return "controllers"
	case Own:
		return "own"
	case EveryNode:
		return "every node"
	}
	return "unknown"
}
