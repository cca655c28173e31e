package apps

import (
	"context"
	"errors"
	"fmt"
	"strings"

	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/kit/kube"
)

// fieldManager owns the fields of everything made from Apps.
const fieldManager = "emerald-apps"

type objectKey struct {
	kind string
	types.NamespacedName
}

// appliedObject is what was sent and what came of it.
type appliedObject struct {
	fingerprint string
	version     string
}

// mayOwn returns a refusal when an object of that kind and name exists and is
// not the App's. Only what the cache does not have is looked up, for the cache
// holds no objects of others.
func (r *reconciler) mayOwn(ctx context.Context, app *v1alpha1.App, obj kube.Object) error {
	have, err := r.empty(obj)
	if err != nil {
		return err
	}
	err = r.client.Get(ctx, client.ObjectKeyFromObject(obj), have)
	if apierrors.IsNotFound(err) {
		err = r.live.Get(ctx, client.ObjectKeyFromObject(obj), have)
	}
	kind := obj.GetObjectKind().GroupVersionKind().Kind
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("read %s %q: %w", kind, obj.GetName(), err)
	case metav1.IsControlledBy(have, app):
		return nil
	case ownedByNamesake(have, app):
		return delay{fmt.Sprintf("the %s %q of a deleted App of this name is being removed", kind, obj.GetName())}
	default:
		return refusal{v1alpha1.ReasonNameTaken, fmt.Sprintf(
			"the %s %q exists already and was not made for this App: give the App another name, or remove it with: kubectl delete %s -n %s %s",
			kind, obj.GetName(), strings.ToLower(kind), obj.GetNamespace(), obj.GetName())}
	}
}

// ownedByNamesake tells whether obj was made for an earlier App of app's name.
// The garbage collector is about to remove it.
func ownedByNamesake(obj kube.Object, app *v1alpha1.App) bool {
	owner := metav1.GetControllerOf(obj)
	return owner != nil && owner.Kind == "App" && owner.Name == app.Name && owner.UID != app.UID
}

// empty returns a new object of the type of obj.
func (r *reconciler) empty(obj kube.Object) (kube.Object, error) {
	o, err := r.client.Scheme().New(obj.GetObjectKind().GroupVersionKind())
	if err != nil {
		return nil, fmt.Errorf("make an empty %T: %w", obj, err)
	}
	return o.(kube.Object), nil
}

// step is one object on its way to the API server.
type step struct {
	key         objectKey
	desired     *unstructured.Unstructured
	fingerprint string
	current     kube.Object // what the cluster has, when that is as desired
}

// applyAll makes the cluster's objects match objs and replaces each of them by
// what the cluster then has. When the API server refuses one, none is changed:
// all that differ are tried first.
func (r *reconciler) applyAll(ctx context.Context, objs []kube.Object) error {
	steps := make([]step, len(objs))
	for i, obj := range objs {
		var err error
		if steps[i], err = r.plan(ctx, obj); err != nil {
			return err
		}
	}
	for _, s := range steps {
		if s.current != nil {
			continue
		}
		trial := s
		trial.desired = s.desired.DeepCopy()
		if err := r.send(ctx, trial, client.DryRunAll); err != nil {
			return err
		}
	}
	for i, s := range steps {
		if s.current != nil {
			objs[i] = s.current
			continue
		}
		if err := r.send(ctx, s); err != nil {
			return err
		}
		out, err := r.empty(objs[i])
		if err != nil {
			return err
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(s.desired.Object, out); err != nil {
			return fmt.Errorf("read back %s %q: %w", s.key.kind, s.key.Name, err)
		}
		r.applied[s.key] = appliedObject{s.fingerprint, versionOf(out)}
		objs[i] = out
	}
	return nil
}

// plan finds out whether obj has to be sent: unless the same was sent before
// and nobody changed it since.
func (r *reconciler) plan(ctx context.Context, obj kube.Object) (step, error) {
	kind := obj.GetObjectKind().GroupVersionKind()
	s := step{key: objectKey{kind.Kind, client.ObjectKeyFromObject(obj)}}
	var err error
	if s.desired, err = kube.Desired(obj); err != nil {
		return s, err
	}
	if s.fingerprint, err = digest(s.desired.Object); err != nil {
		return s, fmt.Errorf("fingerprint %s %q: %w", kind.Kind, obj.GetName(), err)
	}
	have, err := r.empty(obj)
	if err != nil {
		return s, err
	}
	err = r.client.Get(ctx, s.key.NamespacedName, have)
	if client.IgnoreNotFound(err) != nil {
		return s, fmt.Errorf("read %s %q: %w", kind.Kind, obj.GetName(), err)
	}
	if err == nil && r.applied[s.key] == (appliedObject{s.fingerprint, versionOf(have)}) {
		have.GetObjectKind().SetGroupVersionKind(kind)
		s.current = have
	}
	return s, nil
}

// send applies a step's object, which afterwards is as the cluster has it. What
// the API server finds wrong with it is a refusal.
func (r *reconciler) send(ctx context.Context, s step, opts ...client.ApplyOption) error {
	opts = append(opts, client.FieldOwner(fieldManager), client.ForceOwnership)
	err := r.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(s.desired), opts...)
	switch {
	case apierrors.IsInvalid(err), apierrors.IsForbidden(err), apierrors.IsBadRequest(err):
		return refusal{v1alpha1.ReasonRefused, shorten(err.Error())}
	case err != nil:
		return fmt.Errorf("apply %s %q: %w", s.key.kind, s.key.Name, err)
	}
	return nil
}

// versionOf returns what changes whenever somebody changes what obj asks for:
// its generation, or its resource version where its kind counts none.
func versionOf(obj kube.Object) string {
	if g := obj.GetGeneration(); g > 0 {
		return fmt.Sprintf("%s/%d", obj.GetUID(), g)
	}
	return fmt.Sprintf("%s/%s", obj.GetUID(), obj.GetResourceVersion())
}

// prune removes what the App was made of and no longer is.
func (r *reconciler) prune(ctx context.Context, app *v1alpha1.App, keep []kube.Object) error {
	wanted := map[objectKey]bool{}
	for _, obj := range keep {
		wanted[objectKey{obj.GetObjectKind().GroupVersionKind().Kind, client.ObjectKeyFromObject(obj)}] = true
	}
	var budgets policyv1.PodDisruptionBudgetList
	var sets gatewayv1.ListenerSetList
	mine := []client.ListOption{client.InNamespace(app.Namespace), client.MatchingLabels{v1alpha1.LabelApp: app.Name}}
	if err := errors.Join(r.client.List(ctx, &budgets, mine...), r.client.List(ctx, &sets, mine...)); err != nil {
		return fmt.Errorf("list what it was made of: %w", err)
	}
	var gone []kube.Object
	for i := range budgets.Items {
		gone = append(gone, &budgets.Items[i])
	}
	for i := range sets.Items {
		gone = append(gone, &sets.Items[i])
	}
	for _, obj := range gone {
		kind := "PodDisruptionBudget"
		if _, ok := obj.(*gatewayv1.ListenerSet); ok {
			kind = "ListenerSet"
		}
		key := objectKey{kind, client.ObjectKeyFromObject(obj)}
		if wanted[key] || !metav1.IsControlledBy(obj, app) {
			continue
		}
		delete(r.applied, key)
		if err := client.IgnoreNotFound(r.client.Delete(ctx, obj)); err != nil {
			return fmt.Errorf("remove %s %q: %w", kind, obj.GetName(), err)
		}
	}
	return nil
}
