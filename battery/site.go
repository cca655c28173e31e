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

	// Leave is called by Run, at most once and after its context has ended, by
	// a battery that must not be asked any more before it stops answering: the
	// workload's probe takes its readiness back, which everybody knows after
	// [LeaveTime]. Most need not: a pod that is
	// told to go gets no new connections as soon as there is another. Never nil
	// in Run, nil elsewhere.
	Leave func()
}

// UserID is the user and group that batteries run as unless their workload
// says otherwise: the number that distroless images use for "nonroot".
const UserID = 65532

// Owner is the field manager of everything the platform applies.
const Owner = "emerald"

// LabelBattery is the label on everything the platform applies, and on the pods
// of its workloads. It holds the name of the battery an object belongs to.
const LabelBattery = "emerald.dev/battery"

// AnnotationSite is the annotation on the pods of the platform's workloads that
// holds the [SiteSettings.Fingerprint] of the settings they were started with.
const AnnotationSite = "emerald.dev/site"

// The shared workloads and where they live.
const (
	// SystemNamespace holds what belongs to no single battery.
	SystemNamespace = "emerald-system"
	// SystemBattery is the value of LabelBattery on what lives there; no battery
	// has this name.
	SystemBattery = "system"
	// ControllersWorkload is the Deployment, and its service account, that runs
	// the batteries whose Where is Controllers.
	ControllersWorkload = "emerald-controllers"
	// NodeWorkload is the DaemonSet, and its service account, that runs the
	// batteries whose Where is EveryNode.
	NodeWorkload = "emerald-node"
)

// ConditionOf returns the type of the pod condition by which a pod of a shared
// workload reports that the battery called name does its job there.
func ConditionOf(name string) string { return "emerald.dev/" + name }

// NamespaceOf returns the namespace of the battery called name.
func NamespaceOf(name string) string { return "emerald-" + name }
