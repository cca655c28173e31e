package install

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/battery"
)

// prepare makes what everything else needs: the namespace of the shared
// workloads, where inventories live, and the kind Platform. It waits for an API
// server that does not answer yet.
func (in *Installer) prepare(ctx context.Context) error {
	pause := retryFirst
	for {
		err := in.prepareOnce(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		in.log.Info("wait for the API server", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, 2*time.Second)
	}
}

func (in *Installer) prepareOnce(ctx context.Context) error {
	ns := &corev1.Namespace{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
		ObjectMeta: metav1.ObjectMeta{Name: battery.SystemNamespace},
	}
	// Others may have made it, with labels; the shared workloads add theirs.
	_, err := in.cluster.core.Namespaces().Create(ctx, ns, metav1.CreateOptions{FieldManager: battery.Owner})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create namespace %q: %w", ns.Name, err)
	}
	crd, err := v1alpha1.CRD("platforms")
	if err != nil {
		return err
	}
	crd.SetGroupVersionKind(crdKind)
	if _, err := in.cluster.apply(ctx, crd); err != nil {
		return err
	}
	if err := in.cluster.establish(ctx, crd.Name); err != nil {
		return err
	}
	if in.options.Change != nil {
		if err := in.cluster.changePlatform(ctx, in.options.Change); err != nil {
			return err
		}
		if err := in.options.Changed(); err != nil {
			return err
		}
		in.options.Change = nil
	}
	// What an earlier version installed and this one does not know is removed.
	names, err := in.cluster.inventories(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		if in.workers[name] == nil {
			in.workers[name] = newWorker(in, name, nil, nil)
			in.setState(name, nil, v1alpha1.PhaseWaiting, "is removed: this version does not have it")
		}
	}
	return nil
}

// report writes the state into the status of the Platform object whenever it
// has changed.
func (in *Installer) report(ctx context.Context) error {
	var written v1alpha1.PlatformStatus
	for {
		var again <-chan time.Time
		in.progress()
		if status := in.status(written.Conditions); !reflect.DeepEqual(status, written) {
			err := in.cluster.writeStatus(ctx, status)
			switch {
			case err == nil:
				written = status
			case ctx.Err() == nil:
				in.log.Debug("report the state", "error", err)
				again = time.After(retryFirst)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-in.changed:
		case <-again:
		}
	}
}

func (in *Installer) progress() {
	if in.options.Progress != nil {
		in.options.Progress(in.Status())
	}
}

// status returns what the Platform object is to say. before are the conditions
// it said last.
func (in *Installer) status(before []metav1.Condition) v1alpha1.PlatformStatus {
	out := v1alpha1.PlatformStatus{Version: in.options.Version, Batteries: in.Status()}
	for i := range out.Batteries {
		// What a condition's readers see has seconds, no more.
		out.Batteries[i].Since = metav1.NewTime(out.Batteries[i].Since.Truncate(time.Second))
	}
	in.mu.Lock()
	accepted := in.accepted
	var behind []string
	if in.current != nil {
		out.Domain = in.current.site.Domain
		for name, s := range in.states {
			if s.plan != in.current && s.phase != v1alpha1.PhaseOff {
				behind = append(behind, name)
			}
		}
	}
	in.mu.Unlock()
	slices.Sort(behind)
	ready := readyCondition(out.Batteries)
	if ready.Status == metav1.ConditionTrue && len(behind) > 0 {
		// They are as the settings before wanted them.
		ready.Status, ready.Reason, ready.Message = metav1.ConditionFalse, "Installing", strings.Join(behind, ", ")
	}
	ready.ObservedGeneration = accepted.ObservedGeneration
	out.ObservedGeneration = accepted.ObservedGeneration
	for _, c := range []metav1.Condition{accepted, ready} {
		if c.Type == "" {
			continue
		}
		c.LastTransitionTime = metav1.NewTime(time.Now().Truncate(time.Second))
		for _, old := range before {
			if old.Type == c.Type && old.Status == c.Status {
				c.LastTransitionTime = old.LastTransitionTime
			}
		}
		out.Conditions = append(out.Conditions, c)
	}
	return out
}

// readyCondition sums up what is waited for.
func readyCondition(batteries []v1alpha1.BatteryStatus) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: "Ready"}
	var waiting []string
	for _, b := range batteries {
		if b.Phase == v1alpha1.PhaseReady || b.Phase == v1alpha1.PhaseOff {
			continue
		}
		c.Status = metav1.ConditionFalse
		if c.Reason == "Ready" {
			c.Reason = "Installing"
		}
		if b.Phase == v1alpha1.PhaseFailed {
			c.Reason = "Failed"
		}
		waiting = append(waiting, b.Name)
	}
	if len(waiting) > 0 {
		c.Message = strings.Join(waiting, ", ")
	}
	return c
}

// writeStatus makes the status of the Platform object what status says.
func (c *cluster) writeStatus(ctx context.Context, status v1alpha1.PlatformStatus) error {
	raw, err := json.Marshal(map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": "Platform",
		"metadata": map[string]any{"name": v1alpha1.PlatformName}, "status": status,
	})
	if err != nil {
		return fmt.Errorf("encode the state: %w", err)
	}
	force := true
	_, err = c.objects.Resource(platforms).Patch(ctx, v1alpha1.PlatformName, types.ApplyPatchType, raw,
		metav1.PatchOptions{FieldManager: battery.Owner, Force: &force}, "status")
	if err != nil {
		return fmt.Errorf("write the state of the Platform: %w", err)
	}
	return nil
}
