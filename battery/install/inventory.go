package install

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/kube"
)

// ref names one object. It is comparable.
type ref struct {
	Group     string `json:"group,omitempty"`
	Version   string `json:"version"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

func refTo(o kube.Object) ref {
	gvk := o.GetObjectKind().GroupVersionKind()
	return ref{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind, Namespace: o.GetNamespace(), Name: o.GetName()}
}

func (r ref) kind() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: r.Group, Version: r.Version, Kind: r.Kind}
}

// String returns the object as people write it: kind and name.
func (r ref) String() string {
	if r.Namespace == "" {
		return fmt.Sprintf("%s %q", r.Kind, r.Name)
	}
	return fmt.Sprintf("%s %q", r.Kind, r.Namespace+"/"+r.Name)
}

// is tells whether r and q are the same object, seen through any version of its
// API.
func (r ref) is(q ref) bool {
	r.Version, q.Version = "", ""
	return r == q
}

// inventory is what the installer has applied for one battery and not removed.
type inventory struct {
	objects []ref
	// applied is the digest of the rendering that was last applied whole.
	applied string
}

const (
	inventoryLabel   = "emerald.dev/inventory"
	inventoryObjects = "objects.json"
	inventoryApplied = "applied"
)

func inventoryName(battery string) string { return "inventory-" + battery }

// with returns the inventory with what it lacks of refs.
func (inv inventory) with(refs []ref) inventory {
	out := inventory{objects: slices.Clone(inv.objects), applied: inv.applied}
	for _, r := range refs {
		i := slices.IndexFunc(out.objects, r.is)
		if i >= 0 {
			out.objects[i] = r // perhaps of a newer version
		} else {
			out.objects = append(out.objects, r)
		}
	}
	return out
}

// without returns what the inventory has beyond refs, in the order of removal:
// what depends on others first.
func (inv inventory) without(refs []ref) []ref {
	var out []ref
	for _, r := range inv.objects {
		if !slices.ContainsFunc(refs, r.is) {
			out = append(out, r)
		}
	}
	slices.SortStableFunc(out, func(a, b ref) int { return -cmp.Compare(kube.Rank(a.Kind), kube.Rank(b.Kind)) })
	return out
}

func (inv inventory) equal(o inventory) bool {
	return inv.applied == o.applied && slices.Equal(inv.objects, o.objects)
}

// readInventory returns a battery's inventory, empty when there is none.
func (c *cluster) readInventory(ctx context.Context, name string) (inventory, error) {
	cm, err := c.core.ConfigMaps(battery.SystemNamespace).Get(ctx, inventoryName(name), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return inventory{}, nil
	}
	if err != nil {
		return inventory{}, fmt.Errorf("read the inventory of battery %q: %w", name, err)
	}
	inv := inventory{applied: cm.Data[inventoryApplied]}
	if err := json.Unmarshal([]byte(cm.Data[inventoryObjects]), &inv.objects); err != nil {
		return inventory{}, fmt.Errorf("decode the inventory of battery %q: %w", name, err)
	}
	return inv, nil
}

// writeInventory keeps a battery's inventory; an empty one is deleted.
func (c *cluster) writeInventory(ctx context.Context, name string, inv inventory) error {
	if len(inv.objects) == 0 {
		err := c.core.ConfigMaps(battery.SystemNamespace).Delete(ctx, inventoryName(name), metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete the inventory of battery %q: %w", name, err)
		}
		return nil
	}
	raw, err := json.Marshal(inv.objects)
	if err != nil {
		return fmt.Errorf("encode the inventory of battery %q: %w", name, err)
	}
	return c.applyConfigMap(ctx, inventoryName(name), map[string]string{inventoryLabel: name},
		map[string]string{inventoryObjects: string(raw), inventoryApplied: inv.applied})
}

// inventories returns the names of all batteries that have an inventory, of
// this list or of one long gone.
func (c *cluster) inventories(ctx context.Context) ([]string, error) {
	list, err := c.core.ConfigMaps(battery.SystemNamespace).List(ctx, metav1.ListOptions{LabelSelector: inventoryLabel})
	if err != nil {
		return nil, fmt.Errorf("list the inventories: %w", err)
	}
	var names []string
	for _, cm := range list.Items {
		names = append(names, cm.Labels[inventoryLabel])
	}
	return names, nil
}

// applyConfigMap writes one of the installer's own notes.
func (c *cluster) applyConfigMap(ctx context.Context, name string, labels, data map[string]string) error {
	cm := &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Namespace: battery.SystemNamespace, Name: name, Labels: labels},
		Data:       data,
	}
	_, err := c.apply(ctx, cm)
	return err
}
