package battery

import (
	"log/slog"

	"k8s.io/client-go/rest"
)

// Site is everything a battery may know about the place it runs in. It is
// passed by value; its fields are read-only to batteries.
type Site struct {
	// Domain is the platform's own domain, without a trailing dot, for example
	// "emerald.localhost". Apps live at <app>.<Domain>.
	Domain string

	// Namespace is the battery's own namespace, emerald-<name>.
	Namespace string

	// Image is the reference by digest of the platform's own image, which every
	// battery runs. It is on every machine already and is never pulled.
	Image string

	// Replicas is how many copies a battery that serves traffic should run: 1
	// on a single machine, 2 or more where there are machines to spread over.
	Replicas int32

	// ClusterDomain is the suffix of service names, without dots at its ends:
	// "cluster.local".
	ClusterDomain string

	// DNSAddress is the service address every pod asks for names.
	DNSAddress string

	// RegistryAddress is the fixed service address (an IP without port) of the
	// platform's image registry, which the container runtime of every machine
	// knows before DNS works.
	RegistryAddress string

	// DataDir is the platform's directory on every machine. A battery keeps
	// its data under DataDir/batteries/<name>, which exists, belongs to
	// [UserID] and is closed to others, through a hostPath volume. It is ""
	// where Emerald did not boot the machines; then a battery claims a volume.
	DataDir string

	// Config is the battery's Config with the user's settings decoded into it:
	// it has the same type as Battery.Config. Nil when that is nil.
	Config any

	// Kube reaches the cluster's API: with the battery's own identity and
	// rights in Run, as the user who asked for the proof in Check. Nil in
	// Manifests. Copy it before changing it.
	Kube *rest.Config

	// Log carries the battery's name. Never nil in Run and Check, nil in
	// Manifests.
	Log *slog.Logger

	// Ready is called by Run, once or more and from any goroutine, as soon as
	// the battery does its job; the workload's probe reports it. Never nil in
	// Run, nil elsewhere.
	Ready func()
}

// UserID is the user and group that batteries run as unless their workload
// says otherwise: the number that distroless images use for "nonroot".
const UserID = 65532

// Owner is the field manager of everything the platform applies.
const Owner = "emerald"

// Labels that the platform puts on what it applies.
const (
	// LabelBattery holds the name of the battery an object belongs to.
	LabelBattery = "emerald.dev/battery"
)

// NamespaceOf returns the namespace of the battery called name.
func NamespaceOf(name string) string { return "emerald-" + name }
