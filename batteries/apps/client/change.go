package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/emerald-platform/emerald/api/v1alpha1"
)

// Change is what the user wants to be different about an App. Its zero value
// changes nothing. What it does not mention stays as it is.
type Change struct {
	// Image to run, by digest where that is known; "" keeps it.
	Image string
	// ImageUser is what is known about Image's user; "" when nothing is.
	ImageUser v1alpha1.ImageUserKind
	// ImagePort is the port the image says it listens on, 0 when it says none.
	// It counts as long as nobody chose a port.
	ImagePort int32

	// Whole, when set, is the spec to start from instead of the present one:
	// what the folder's emerald.yaml says. Secrets given by hand stay.
	Whole *v1alpha1.AppSpec

	// Env are variables to set, or, where nil, to remove.
	Env map[string]*string
	// Secrets are values to keep in the App's own Secret, or, where nil, to
	// remove from it.
	Secrets map[string][]byte
	// Domains to add, and those to remove.
	Domains, DropDomains []v1alpha1.Domain

	Port     int32 // 0 keeps it
	Replicas *int32
	Health   *v1alpha1.Health
	Memory   *resource.Quantity // promised and the limit
	CPU      *resource.Quantity // promised; idle CPU is anybody's

	// Cause is a line for the history.
	Cause string
}

// ErrChange says that what the user asks for makes no sense together.
var ErrChange = errors.New("this does not go together")

// outcome is an App's spec after a change.
type outcome struct {
	spec     v1alpha1.AppSpec
	touched  []string // the fields the user spoke about
	autoPort bool     // nobody chose the port
}

// apply returns what becomes of the App. own is the name that the App's own
// Secret then has, "" for none.
func (c Change) apply(app *v1alpha1.App, own string) (outcome, error) {
	name, spec := app.Name, *app.Spec.DeepCopy()
	touched := map[string]bool{}
	auto := app.UID == "" || app.Annotations[v1alpha1.AnnotationPort] == autoPort
	if c.Whole != nil {
		spec = *c.Whole.DeepCopy()
		for _, field := range specFields {
			touched[field] = true
		}
		auto = spec.Port == 0
	}
	if c.Image != "" {
		spec.Image, touched["image"] = c.Image, true
	}
	if spec.Image == "" {
		return outcome{}, fmt.Errorf("%w: there is no image", ErrChange)
	}
	switch {
	case c.Port != 0:
		spec.Port, touched["port"], auto = c.Port, true, false
	case auto && c.ImagePort != 0:
		spec.Port, touched["port"] = c.ImagePort, true
	}
	if len(c.Env) > 0 {
		spec.Env, touched["env"] = mergeEnv(spec.Env, c.Env), true
	}
	if ownSecret(name, spec) != own {
		touched["secrets"] = true
		spec.Secrets = slices.DeleteFunc(spec.Secrets, func(s v1alpha1.SecretUse) bool { return isOwnSecret(name, s.Name) })
		if own != "" {
			spec.Secrets = append(spec.Secrets, v1alpha1.SecretUse{Name: own})
		}
	}
	for _, d := range c.Domains {
		touched["domains"] = true
		if !slices.Contains(spec.Domains, d) {
			spec.Domains = append(spec.Domains, d)
		}
	}
	for _, d := range c.DropDomains {
		touched["domains"] = true
		if !slices.Contains(spec.Domains, d) {
			return outcome{}, fmt.Errorf("%w: the app has no domain %s to remove", ErrChange, d)
		}
		spec.Domains = slices.DeleteFunc(spec.Domains, func(have v1alpha1.Domain) bool { return have == d })
	}
	if c.Replicas != nil {
		spec.Replicas, touched["replicas"] = c.Replicas, true
	}
	if c.Health != nil {
		spec.Health, touched["health"] = c.Health, true
	}
	if c.Memory != nil || c.CPU != nil {
		touched["resources"] = true
		c.resources(&spec.Resources)
	}
	return outcome{spec: spec, touched: slices.Sorted(maps.Keys(touched)), autoPort: auto}, nil
}

// autoPort is the value of the annotation of an App whose port nobody chose.
const autoPort = "auto"

// specFields are the fields of an App's spec by their JSON names.
var specFields = []string{
	"args", "command", "domains", "env", "health", "image", "port", "replicas", "resources", "secrets",
}

func (c Change) resources(r *v1alpha1.AppResources) {
	set := func(list *corev1.ResourceList, name corev1.ResourceName, q resource.Quantity) {
		if *list == nil {
			*list = corev1.ResourceList{}
		}
		(*list)[name] = q
	}
	if c.Memory != nil {
		set(&r.Requests, corev1.ResourceMemory, *c.Memory)
		set(&r.Limits, corev1.ResourceMemory, *c.Memory)
	}
	if c.CPU != nil {
		set(&r.Requests, corev1.ResourceCPU, *c.CPU)
		if limit, ok := r.Limits[corev1.ResourceCPU]; ok && limit.Cmp(*c.CPU) < 0 {
			set(&r.Limits, corev1.ResourceCPU, *c.CPU)
		}
	}
}

// mergeEnv returns env with the values of set, sorted where they are new.
func mergeEnv(env []v1alpha1.EnvVar, set map[string]*string) []v1alpha1.EnvVar {
	var out []v1alpha1.EnvVar
	done := map[string]bool{}
	for _, e := range env {
		value, named := set[e.Name]
		switch {
		case !named:
			out = append(out, e)
		case value != nil:
			out = append(out, v1alpha1.EnvVar{Name: e.Name, Value: *value})
		}
		done[e.Name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(set)) {
		if value := set[name]; value != nil && !done[name] {
			out = append(out, v1alpha1.EnvVar{Name: name, Value: *value})
		}
	}
	return out
}

// applied returns the App as it is sent to be applied: the fields of its new
// spec that the user spoke about or that we own already. What other tools manage
// is left to them.
func applied(app *v1alpha1.App, out outcome) (*unstructured.Unstructured, error) {
	raw, err := json.Marshal(out.spec)
	if err != nil {
		return nil, fmt.Errorf("encode app %q: %w", app.Name, err)
	}
	var fields map[string]any
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, fmt.Errorf("encode app %q: %w", app.Name, err)
	}
	owned, err := ownedFields(app)
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(fields, func(name string, _ any) bool {
		return app.UID != "" && !slices.Contains(out.touched, name) && !slices.Contains(owned, name)
	})
	u := &unstructured.Unstructured{Object: map[string]any{"spec": fields}}
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("App"))
	u.SetNamespace(app.Namespace)
	u.SetName(app.Name)
	return u, nil
}

// ownedFields returns the fields of the App's spec that this package applied
// before, as the API server recorded it in managedFields.
func ownedFields(app *v1alpha1.App) ([]string, error) {
	var out []string
	for _, m := range app.ManagedFields {
		if m.Manager != Manager || m.Operation != "Apply" || m.Subresource != "" || m.FieldsV1 == nil {
			continue
		}
		var fields struct {
			Spec map[string]json.RawMessage `json:"f:spec"`
		}
		if err := json.Unmarshal(m.FieldsV1.GetRawBytes(), &fields); err != nil {
			return nil, fmt.Errorf("read who manages app %q: %w", app.Name, err)
		}
		for name := range fields.Spec {
			out = append(out, strings.TrimPrefix(name, "f:"))
		}
	}
	return out, nil
}
