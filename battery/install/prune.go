package install

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/emerald-platform/emerald/battery"
)

// prune deletes objects, in this order, and returns those it keeps for the sake
// of what users have in them. What is gone already, or has been taken over by
// somebody else, is left alone.
func (w *worker) prune(ctx context.Context, refs []ref) ([]ref, error) {
	var kept []ref
	for _, r := range refs {
		keep, err := w.in.cluster.prune(ctx, w.name, r)
		if err != nil {
			return nil, err
		}
		if keep {
			kept = append(kept, r)
			continue
		}
		w.mu.Lock()
		delete(w.seen, r)
		w.mu.Unlock()
	}
	return kept, nil
}

// prune deletes one object of a battery, or tells that it is to be kept.
func (c *cluster) prune(ctx context.Context, battery string, r ref) (keep bool, err error) {
	at, _, err := c.at(r)
	if meta.IsNoMatchError(err) {
		return false, nil // its definition is gone, and all of its kind
	}
	if err != nil {
		return false, fmt.Errorf("remove %s: %w", r, err)
	}
	live, err := at.Get(ctx, r.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("remove %s: %w", r, err)
	}
	if !owned(live, battery) || live.DeletionTimestamp != nil {
		return false, nil
	}
	if keep, err = c.holdsData(ctx, r); keep || err != nil {
		return keep, err
	}
	background := metav1.DeletePropagationBackground
	err = at.Delete(ctx, r.Name, metav1.DeleteOptions{
		PropagationPolicy: &background, Preconditions: &metav1.Preconditions{UID: &live.UID},
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return false, fmt.Errorf("remove %s: %w", r, err)
	}
	return false, nil
}

// owned tells whether the object still says that it belongs to the battery.
func owned(o metav1.Object, name string) bool { return o.GetLabels()[battery.LabelBattery] == name }

// holdsData tells whether deleting the object would delete what users keep: a
// definition with objects of its kind, a namespace with volumes, or with
// secrets that nobody rendered.
func (c *cluster) holdsData(ctx context.Context, r ref) (bool, error) {
	switch r.Kind {
	case "Namespace":
		return c.namespaceHoldsData(ctx, r.Name)
	case "CustomResourceDefinition":
		return c.definitionHoldsData(ctx, r.Name)
	}
	return false, nil
}

func (c *cluster) namespaceHoldsData(ctx context.Context, name string) (bool, error) {
	claims, err := c.core.PersistentVolumeClaims(name).List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return false, fmt.Errorf("look for volumes in namespace %q: %w", name, err)
	}
	secrets, err := c.core.Secrets(name).List(ctx, metav1.ListOptions{
		Limit: 1, LabelSelector: "!" + battery.LabelBattery,
		FieldSelector: "type!=" + string(corev1.SecretTypeServiceAccountToken),
	})
	if err != nil {
		return false, fmt.Errorf("look for secrets in namespace %q: %w", name, err)
	}
	return len(claims.Items)+len(secrets.Items) > 0, nil
}

func (c *cluster) definitionHoldsData(ctx context.Context, name string) (bool, error) {
	u, err := c.dynamic.Resource(apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions")).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for objects of %q: %w", name, err)
	}
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, crd); err != nil {
		return false, fmt.Errorf("decode the definition %q: %w", name, err)
	}
	for _, v := range crd.Spec.Versions {
		if !v.Served {
			continue
		}
		resource := apiextensionsv1.SchemeGroupVersion.WithResource(crd.Spec.Names.Plural)
		resource.Group, resource.Version = crd.Spec.Group, v.Name
		list, err := c.objects.Resource(resource).List(ctx, metav1.ListOptions{Limit: 1})
		if apierrors.IsNotFound(err) {
			return false, nil // never established
		}
		if err != nil {
			return false, fmt.Errorf("look for objects of %q: %w", name, err)
		}
		return len(list.Items) > 0, nil
	}
	return false, nil
}
