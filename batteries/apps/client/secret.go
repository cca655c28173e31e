package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/emerald-platform/emerald/api/v1alpha1"
)

// An App's own Secret holds what `emerald deploy --secret` was given. It is
// never changed: new values make a new Secret under a new name, so that pods
// roll, and a rollback of the App brings the old values back. The name is random
// and not a fingerprint, which would let readers of names guess at values.

const ownSecretInfix = ".secrets-"

func isOwnSecret(app, secret string) bool { return strings.HasPrefix(secret, app+ownSecretInfix) }

// ownSecret returns the name of the own Secret in a spec of the App, or "".
func ownSecret(app string, spec v1alpha1.AppSpec) string {
	for _, s := range spec.Secrets {
		if isOwnSecret(app, s.Name) {
			return s.Name
		}
	}
	return ""
}

// prepareSecret makes the own Secret that the App shall have after values were
// set and, where nil, removed, and returns its name, "" when nothing is left in
// it. The Secret belongs to nobody yet where the App does not exist: undo removes
// it again.
func (c *Client) prepareSecret(ctx context.Context, app *v1alpha1.App, values map[string][]byte) (name string, undo func(context.Context) error, err error) {
	nothing := func(context.Context) error { return nil }
	present := ownSecret(app.Name, app.Spec)
	if len(values) == 0 {
		return present, nothing, nil
	}
	data := map[string][]byte{}
	if present != "" {
		have := &corev1.Secret{}
		err := c.api.Get(ctx, client.ObjectKey{Namespace: app.Namespace, Name: present}, have)
		if err != nil && !apierrors.IsNotFound(err) {
			return "", nothing, fmt.Errorf("read the secrets of app %q: %w", app.Name, explain(err))
		}
		maps.Copy(data, have.Data)
	}
	wanted := maps.Clone(data)
	for key, value := range values {
		if value == nil {
			delete(wanted, key)
			continue
		}
		if errs := validation.IsEnvVarName(key); len(errs) > 0 {
			return "", nothing, fmt.Errorf("secret %q: it becomes an environment variable: %s", key, strings.Join(errs, "; "))
		}
		wanted[key] = value
	}
	if maps.EqualFunc(data, wanted, slices.Equal[[]byte]) {
		return present, nothing, nil
	}
	if len(wanted) == 0 {
		return "", nothing, nil
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: app.Namespace, Name: app.Name + ownSecretInfix + rand.String(6),
			Labels: map[string]string{v1alpha1.LabelApp: app.Name, "app.kubernetes.io/managed-by": "emerald"},
		},
		Immutable: new(true),
		Data:      wanted,
	}
	if app.UID != "" {
		secret.OwnerReferences = ownedBy(app)
	}
	if err := c.api.Create(ctx, secret, client.FieldOwner(Manager)); err != nil {
		return "", nothing, fmt.Errorf("keep the secrets of app %q: %w", app.Name, explain(err))
	}
	return secret.Name, func(ctx context.Context) error {
		if err := client.IgnoreNotFound(c.api.Delete(ctx, secret)); err != nil {
			return fmt.Errorf("remove secret %q again: %w", secret.Name, err)
		}
		return nil
	}, nil
}

func ownedBy(app *v1alpha1.App) []metav1.OwnerReference {
	return []metav1.OwnerReference{{
		APIVersion: v1alpha1.GroupVersion.String(), Kind: "App", Name: app.Name, UID: app.UID, Controller: new(true),
	}}
}

// settleSecrets gives the App's own Secrets to it, and removes those that
// neither it nor any revision of its history uses.
func (c *Client) settleSecrets(ctx context.Context, app *v1alpha1.App) error {
	var secrets corev1.SecretList
	err := c.api.List(ctx, &secrets, client.InNamespace(app.Namespace), client.MatchingLabels{v1alpha1.LabelApp: app.Name})
	if err != nil {
		return fmt.Errorf("list the secrets of app %q: %w", app.Name, explain(err))
	}
	used := map[string]bool{ownSecret(app.Name, app.Spec): true}
	revisions, err := c.History(ctx, app)
	if err != nil {
		return err
	}
	for _, r := range revisions {
		used[ownSecret(app.Name, r.Spec)] = true
	}
	var errs []error
	for i := range secrets.Items {
		s := &secrets.Items[i]
		switch {
		case !isOwnSecret(app.Name, s.Name):
		case !used[s.Name]:
			err = c.api.Delete(ctx, s)
			errs = append(errs, client.IgnoreNotFound(err))
		case len(s.OwnerReferences) == 0:
			before := s.DeepCopy()
			s.OwnerReferences = ownedBy(app)
			errs = append(errs, c.api.Patch(ctx, s, client.MergeFrom(before), client.FieldOwner(Manager)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("tidy the secrets of app %q: %w", app.Name, err)
	}
	return nil
}
