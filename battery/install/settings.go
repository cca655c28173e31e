package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/battery"
)

// plan is what settings amount to: which batteries are on, and how. It is never
// changed after it was made.
type plan struct {
	site    battery.Site // what is the same for all
	on      map[string]bool
	configs map[string]any
}

// siteOf returns what the battery is rendered with.
func (p *plan) siteOf(b *battery.Battery) battery.Site {
	s := p.site
	s.Namespace = battery.NamespaceOf(b.Name)
	s.Config = p.configs[b.Name]
	return s
}

// ReadPlatform decodes the Platform object of a file, YAML or JSON. It is
// strict: a field that a Platform does not have is an error. What the settings
// of batteries hold is checked by [Check].
func ReadPlatform(raw []byte) (*v1alpha1.Platform, error) {
	asJSON, err := yaml.YAMLToJSONStrict(raw)
	if err != nil {
		return nil, fmt.Errorf("read the Platform: %w", err)
	}
	p := &v1alpha1.Platform{}
	if err := battery.DecodeStrict(asJSON, p); err != nil {
		return nil, fmt.Errorf("read the Platform: %w", err)
	}
	want := metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Platform"}
	if p.TypeMeta != want {
		return nil, fmt.Errorf("read the Platform: it says apiVersion %q, kind %q: begin it with apiVersion: %s and kind: %s",
			p.APIVersion, p.Kind, want.APIVersion, want.Kind)
	}
	if p.Name == "" {
		p.Name = v1alpha1.PlatformName
	}
	if p.Name != v1alpha1.PlatformName {
		return nil, fmt.Errorf("read the Platform: it is called %q: the one of a cluster is called %q", p.Name, v1alpha1.PlatformName)
	}
	return p, nil
}

// Check tells whether the batteries can follow the settings, and if not, every
// reason at once. It is what the installer itself asks before it changes
// anything; commands call it to refuse bad settings early.
func Check(all []battery.Battery, spec v1alpha1.PlatformSpec, site battery.Site) error {
	_, err := decide(all, spec, site)
	return err
}

// CheckDomain refuses another domain than the one that the platform was started
// with: it is part of the names of its images, and of whom their readers trust.
func CheckDomain(domain, started string) error {
	if domain == "" || domain == started {
		return nil
	}
	return fmt.Errorf("domain %q: this platform was started with %q, which is part of the names of its images: "+
		"leave it, and give single apps further domains with: emerald deploy --domain NAME; or start over with: emerald down --wipe", domain, started)
}

// decide turns settings into a plan. site holds what the plan's site is made
// from; its Domain is used when the settings name none.
func decide(all []battery.Battery, spec v1alpha1.PlatformSpec, site battery.Site) (*plan, error) {
	p := &plan{site: site, on: map[string]bool{}, configs: map[string]any{}}
	if spec.Domain != "" {
		p.site.Domain = spec.Domain
	}
	var problems []error
	for _, msg := range validation.IsDNS1123Subdomain(p.site.Domain) {
		problems = append(problems, fmt.Errorf("domain %q: %s", p.site.Domain, msg))
	}
	known := map[string]bool{}
	for i := range all {
		b := &all[i]
		known[b.Name] = true
		settings := spec.Batteries[b.Name]
		p.on[b.Name] = settings.Enabled == nil || *settings.Enabled
		var raw []byte
		if settings.Config != nil {
			raw = settings.Config.Raw
		}
		config, err := battery.DecodeConfig(b, raw)
		if err != nil {
			problems = append(problems, err)
		}
		p.configs[b.Name] = config
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Batteries)) {
		if !known[name] {
			problems = append(problems, fmt.Errorf("there is no battery %q: there are %s", name, strings.Join(slices.Sorted(maps.Keys(known)), ", ")))
		}
	}
	problems = append(problems, p.missing(all)...)
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	for i := range all {
		// Only rendering knows whether values make sense together.
		if b := &all[i]; p.on[b.Name] {
			if _, err := battery.Complete(b, p.siteOf(b)); err != nil {
				problems = append(problems, err)
			}
		}
	}
	return p, errors.Join(problems...)
}

// missing returns what is turned off though others need it.
func (p *plan) missing(all []battery.Battery) []error {
	var problems []error
	for _, b := range all {
		for _, need := range b.Needs {
			if p.on[b.Name] && !p.on[need] {
				problems = append(problems, fmt.Errorf("battery %q cannot be off: battery %q needs it: turn that off, too", need, b.Name))
			}
		}
	}
	return problems
}

// same tells whether two plans render the same.
func (p *plan) same(q *plan) bool { return p != nil && q != nil && reflect.DeepEqual(p, q) }

// acceptedName is the ConfigMap in emerald-system that keeps the settings in
// force, for the time when the Platform object holds others.
const acceptedName = "settings"

const acceptedKey = "spec.json"

// settle keeps the plan as the Platform object and the machines want it.
func (in *Installer) settle(ctx context.Context, w *watches) error {
	last, err := in.cluster.accepted(ctx)
	if err != nil {
		return err
	}
	for {
		var again <-chan time.Time
		if err := in.decideAgain(ctx, w, &last); err != nil && ctx.Err() == nil {
			in.log.Warn("follow the settings", "error", err)
			again = time.After(time.Second)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-again:
		case <-w.settings:
		}
	}
}

// decideAgain looks at the Platform object and the machines once. last is the
// spec in force; nil when none ever was.
func (in *Installer) decideAgain(ctx context.Context, w *watches, last **v1alpha1.PlatformSpec) error {
	site := in.options.Site
	if site.Replicas == 0 {
		site.Replicas = min(max(w.machines(), 1), 2)
	}
	platform, err := w.platform()
	if err != nil {
		return err
	}
	if platform == nil {
		spec := v1alpha1.PlatformSpec{}
		if *last != nil {
			spec = **last
		}
		return in.cluster.createPlatform(ctx, spec) // its arrival wakes us
	}
	spec := platform.Spec
	next, refused := decide(in.options.Batteries, spec, site)
	if in.options.FixedDomain {
		refused = errors.Join(CheckDomain(spec.Domain, site.Domain), refused)
	}
	if refused != nil {
		in.log.Warn("the settings cannot be followed", "error", refused)
		spec = v1alpha1.PlatformSpec{}
		if *last != nil {
			spec = **last
		}
		if next, err = decide(in.options.Batteries, spec, site); err != nil {
			// Settings of another version: what they cannot say stays default.
			if next, err = decide(in.options.Batteries, v1alpha1.PlatformSpec{Domain: spec.Domain}, site); err != nil {
				return err
			}
		}
	}
	in.use(next, condition(platform.Generation, refused))
	if refused != nil {
		return nil
	}
	if *last == nil || !reflect.DeepEqual(**last, spec) {
		if err := in.cluster.keepAccepted(ctx, spec); err != nil {
			return err
		}
		*last = &spec
	}
	return nil
}

// use puts a plan in force.
func (in *Installer) use(p *plan, accepted metav1.Condition) {
	in.mu.Lock()
	fresh := !p.same(in.current)
	if fresh {
		in.current = p
	}
	in.accepted = accepted
	in.mu.Unlock()
	if fresh {
		in.wakeAll()
	}
	in.notify()
}

// condition returns the condition Accepted for settings that were followed, or
// refused for a reason.
func condition(generation int64, refused error) metav1.Condition {
	c := metav1.Condition{
		Type: v1alpha1.ConditionAccepted, Status: metav1.ConditionTrue, ObservedGeneration: generation,
		Reason: "InForce", Message: "the settings are in force",
	}
	if refused != nil {
		c.Status, c.Reason = metav1.ConditionFalse, "Invalid"
		c.Message = "the last good settings stay in force: " + strings.ReplaceAll(refused.Error(), "\n", "; ")
	}
	return c
}

// accepted returns the spec that was last in force, nil when none ever was.
func (c *cluster) accepted(ctx context.Context) (*v1alpha1.PlatformSpec, error) {
	cm, err := c.core.ConfigMaps(battery.SystemNamespace).Get(ctx, acceptedName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the settings in force: %w", err)
	}
	spec := &v1alpha1.PlatformSpec{}
	if err := json.Unmarshal([]byte(cm.Data[acceptedKey]), spec); err != nil {
		// Damaged by hand; the Platform object itself is still there.
		return nil, nil
	}
	return spec, nil
}

func (c *cluster) keepAccepted(ctx context.Context, spec v1alpha1.PlatformSpec) error {
	raw, err := json.Marshal(spec)
	if err != nil {
		return fmt.Errorf("encode the settings in force: %w", err)
	}
	return c.applyConfigMap(ctx, acceptedName, nil, map[string]string{acceptedKey: string(raw)})
}
