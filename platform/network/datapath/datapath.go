// Package datapath connects pods to the machine they run on, with nothing but
// kernel objects: a veth pair, routes and nftables. The plugin that the
// container runtime calls and the machine process both use it; they share a
// state file under a lock.
//
// A pod gets one address per family. Its only neighbour is the machine, at a
// link-local gateway address with a fixed hardware address; the machine has a
// route per pod. There is no bridge, so every packet passes the machine's
// routing and its nftables hooks, which is where policies, overlays and private
// networks add their own [Step].
//
// It promises that Attach either connects the pod or leaves nothing behind,
// also when it is killed half-way: what was begun is in the state file, and
// Collect undoes it. Detach may be called for anything, any number of times.
//
// Invariant: every address in use is in the state file before the kernel hears
// of it, and leaves the state file after the kernel has forgotten it.
package datapath

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// LinkPrefix begins the name of the machine's end of every pod's link.
const LinkPrefix = "pod"

// Config is what a machine's pods have in common. The machine process writes
// it, as part of the network configuration that the container runtime hands to
// the plugin.
type Config struct {
	// PodCIDRs are the ranges this machine gives addresses from, at most one
	// per family.
	PodCIDRs []netip.Prefix `json:"podCIDRs"`
	// MTU of the pods' links, in bytes.
	MTU int `json:"mtu"`
	// StateDir holds the state file and its lock.
	StateDir string `json:"stateDir"`
}

// Attachment is one pod's connection.
type Attachment struct {
	// Container and Interface identify it: the runtime's id of the sandbox and
	// the interface's name inside.
	Container string `json:"container"`
	Interface string `json:"interface"`
	// NetNS is the path of the pod's network namespace.
	NetNS string `json:"netns"`
	// Pod is namespace/name, for people.
	Pod string `json:"pod,omitempty"`
	// Link is the machine's end.
	Link string `json:"link"`
	// Addresses of the pod, at most one per family.
	Addresses []netip.Addr `json:"addresses"`
	// Ports of the machine that lead to the pod.
	Ports []PortMapping `json:"ports,omitempty"`
}

// PortMapping leads a port of the machine to a port of a pod. The field names
// are those of the CNI convention "portMappings".
type PortMapping struct {
	HostPort      uint16     `json:"hostPort"`
	ContainerPort uint16     `json:"containerPort"`
	Protocol      string     `json:"protocol"` // tcp, udp or sctp
	HostIP        netip.Addr `json:"hostIP,omitzero"`
}

// is reports whether the attachment is the one of container and its interface.
func (a *Attachment) is(container, iface string) bool {
	return a.Container == container && a.Interface == iface
}

// LinkName returns the name of the machine's end of a pod's link. It follows
// from the identity alone, so that a link can be found without state.
func LinkName(container, iface string) string {
	sum := sha256.Sum256([]byte(container + "\x00" + iface))
	return LinkPrefix + hex.EncodeToString(sum[:6])
}

// Step is one thing that is done to connect a pod. Both functions are called
// under the state lock and get the whole state, in which the attachment is
// present during Attach and already absent during Detach.
type Step struct {
	Name string
	// Attach does it. What it did before it fails, it need not undo: Detach
	// is called then.
	Attach func(context.Context, *State, *Attachment) error
	// Detach undoes it and accepts that there is nothing to undo.
	Detach func(context.Context, *State, *Attachment) error
}

// Datapath connects pods. The zero value is useless; see [New].
type Datapath struct {
	config Config
	steps  []Step
	store  store
}

// New returns the datapath of a machine. Steps are done in this order and
// undone in the reverse: first the link, then what leads to it.
func New(c Config) *Datapath {
	return &Datapath{
		config: c,
		steps: []Step{
			{Name: "link", Attach: c.attachLink, Detach: detachLink},
			{Name: "host ports", Attach: attachPorts, Detach: detachPorts},
		},
		store: store{dir: c.StateDir},
	}
}

// Attach gives a pod its addresses and connects it. a names the pod, its
// namespace and ports; Attach fills in the rest. Attaching what is attached
// starts over.
func (d *Datapath) Attach(ctx context.Context, a *Attachment) error {
	if len(d.config.PodCIDRs) == 0 {
		return errors.New("attach pod: this machine has no pod addresses yet; is its Node registered?")
	}
	return d.store.update(func(s *State, save func() error) error {
		if old := s.take(a.Container, a.Interface); old != nil {
			if err := d.undo(ctx, s, old, len(d.steps)); err != nil {
				return err
			}
		}
		a.Link = LinkName(a.Container, a.Interface)
		var err error
		if a.Addresses, err = s.allocate(d.config.PodCIDRs); err != nil {
			return err
		}
		s.Attachments = append(s.Attachments, *a)
		if err := save(); err != nil {
			return err
		}
		for i, step := range d.steps {
			if err := step.Attach(ctx, s, a); err != nil {
				err = fmt.Errorf("attach %s of pod %s: %w", step.Name, a.Pod, err)
				s.take(a.Container, a.Interface)
				if undo := d.undo(ctx, s, a, i+1); undo != nil {
					// Keep the address until Collect succeeds in undoing.
					s.Attachments = append(s.Attachments, *a)
					return errors.Join(err, undo)
				}
				return errors.Join(err, save())
			}
		}
		return nil
	})
}

// Detach disconnects a pod and frees its addresses.
func (d *Datapath) Detach(ctx context.Context, container, iface string) error {
	return d.store.update(func(s *State, save func() error) error {
		a := s.take(container, iface)
		if a == nil {
			// Without a record there can be no port, but a link of a state
			// that was lost.
			return detachLink(ctx, s, &Attachment{Link: LinkName(container, iface)})
		}
		if err := d.undo(ctx, s, a, len(d.steps)); err != nil {
			return err
		}
		return save()
	})
}

// undo detaches the first n steps, last first.
func (d *Datapath) undo(ctx context.Context, s *State, a *Attachment, n int) error {
	for _, step := range slices.Backward(d.steps[:n]) {
		if err := step.Detach(ctx, s, a); err != nil {
			return fmt.Errorf("detach %s of pod %s: %w", step.Name, a.Pod, err)
		}
	}
	return nil
}

// Get returns the attachment of a container's interface, or nil.
func (d *Datapath) Get(container, iface string) (*Attachment, error) {
	var out *Attachment
	err := d.store.update(func(s *State, _ func() error) error {
		out = s.find(container, iface)
		return nil
	})
	return out, err
}

// Attachments lists what is attached, oldest first.
func (d *Datapath) Attachments() ([]Attachment, error) {
	var out []Attachment
	err := d.store.update(func(s *State, _ func() error) error {
		out = slices.Clone(s.Attachments)
		return nil
	})
	return out, err
}

// Collect detaches every attachment that keep says no to, and returns them.
// What fails is kept, reported, and tried again by the next call.
func (d *Datapath) Collect(ctx context.Context, keep func(*Attachment) bool) ([]Attachment, error) {
	var gone []Attachment
	err := d.store.update(func(s *State, save func() error) error {
		var errs []error
		for _, a := range slices.Clone(s.Attachments) {
			if keep(&a) {
				continue
			}
			s.take(a.Container, a.Interface)
			if err := d.undo(ctx, s, &a, len(d.steps)); err != nil {
				s.Attachments = append(s.Attachments, a)
				errs = append(errs, err)
				continue
			}
			gone = append(gone, a)
		}
		if len(gone) == 0 {
			return errors.Join(errs...)
		}
		return errors.Join(append(errs, save())...)
	})
	return gone, err
}
