package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/battery/install"
	"github.com/emerald-platform/emerald/platform/dirs"
	"github.com/emerald-platform/emerald/platform/machine"
)

// readConfig reads the Platform that `emerald up --config` names; "-" is
// standard input. It returns nil when the flag was not given.
func (e *env) readConfig(path string) (*v1alpha1.PlatformSpec, error) {
	if path == "" {
		return nil, nil
	}
	var raw []byte
	var err error
	if path == "-" {
		raw, err = io.ReadAll(e.in)
	} else {
		raw, err = os.ReadFile(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the settings: there is no file %s", path)
	}
	if err != nil {
		return nil, fmt.Errorf("read the settings: %w", err)
	}
	platform, err := install.ReadPlatform(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: nothing was changed; an example is in: emerald up --help", path, err)
	}
	return &platform.Spec, nil
}

// checkConfig returns everything that is wrong with the settings of the machine
// and of the platform together. started is the domain that the platform has,
// "" before its first start.
func (e *env) checkConfig(d dirs.Dirs, s machine.Settings, started string, spec *v1alpha1.PlatformSpec) error {
	problems := []error{s.Check()}
	if started != "" {
		problems = append(problems, install.CheckDomain(s.Domain, started))
	}
	if spec != nil {
		// Only what is not said about s already.
		const anyDomain, anyImage = "emerald.localhost", "emerald.dev/emerald"
		rest := *spec.DeepCopy()
		rest.Domain = ""
		problems = append(problems, install.Check(e.batteries, rest, machine.Site(d, anyDomain, anyImage)))
	}
	return errors.Join(problems...)
}

// changePlatform gives the running platform other settings and returns when
// they are in force.
func changePlatform(ctx context.Context, d dirs.Dirs, spec v1alpha1.PlatformSpec) error {
	own, err := ownKubeconfig(d, false)
	if err != nil {
		return err
	}
	cfg, err := clientcmd.NewDefaultClientConfig(*own, nil).ClientConfig()
	if err != nil {
		return fmt.Errorf("read the owner's kubeconfig: %w", err)
	}
	c, err := objects(cfg)
	if err != nil {
		return err
	}
	platform := &v1alpha1.Platform{}
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		if err := c.Get(ctx, client.ObjectKey{Name: v1alpha1.PlatformName}, platform); err != nil {
			return err
		}
		if reflect.DeepEqual(platform.Spec, spec) {
			return nil
		}
		platform.Spec = spec
		return c.Update(ctx, platform)
	})
	if err != nil {
		return fmt.Errorf("change the platform's settings: %w", explain(ctx, cfg, err))
	}
	want := platform.Generation
	for {
		if done, err := inForce(platform, want); done || err != nil {
			return err
		}
		if err := machine.Pause(ctx, patienceStep); err != nil {
			return fmt.Errorf("change the platform's settings: they are not in force in time: see what is waited for with: emerald status")
		}
		if err := c.Get(ctx, client.ObjectKey{Name: v1alpha1.PlatformName}, platform); err != nil && ctx.Err() == nil {
			return fmt.Errorf("change the platform's settings: %w", explain(ctx, cfg, err))
		}
	}
}

// inForce tells whether every battery follows the settings of a generation.
func inForce(p *v1alpha1.Platform, generation int64) (bool, error) {
	accepted := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionAccepted)
	if accepted == nil || accepted.ObservedGeneration < generation {
		return false, nil
	}
	if accepted.Status == metav1.ConditionFalse {
		return false, fmt.Errorf("change the platform's settings: %s: correct the file and run it again", accepted.Message)
	}
	ready := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionReady)
	return ready != nil && ready.ObservedGeneration >= generation && ready.Status == metav1.ConditionTrue, nil
}
