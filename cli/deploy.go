package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/client-go/rest"

	"github.com/emerald-platform/emerald/api/v1alpha1"
	"github.com/emerald-platform/emerald/batteries/apps/client"
	build "github.com/emerald-platform/emerald/batteries/build/client"
)

// deployment is one call of `emerald deploy`.
type deployment struct {
	env *env

	name, namespace    string
	vars, secrets      []string
	envFile            string
	port, replicas     int32
	domains            []string
	health             string
	memory, cpu        string
	timeout            time.Duration
	noWait, noCache    bool
	dockerfile, output string
}

func newDeployCommand(e *env) *cobra.Command {
	cmd := deployCommand(&deployment{env: e})
	e.explainSilence(cmd)
	return cmd
}

func deployCommand(d *deployment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "deploy [DIR|IMAGE]",
		Short: "Run what is in a folder, or an image, behind HTTPS",
		Long: `Deploy builds the folder (its Dockerfile, or what it finds: Go, Node, Python, a
static site), keeps the image in the platform's registry, runs it, waits until it
is healthy and prints its URL.

A second deploy of the same name updates it without losing a request; what its
flags do not mention stays as it is. If the new version does not become healthy,
the old one goes on serving.`,
		Example: `  emerald deploy
  emerald deploy ./shop --name shop --env MODE=live --secret TOKEN=@token.txt
  emerald deploy registry.emerald.localhost/default/shop:v2 --name shop
  emerald deploy ./shop --domain shop.example.com --replicas 2 --health /healthz`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			target := "."
			if len(args) > 0 {
				target = args[0]
			}
			return d.run(cmd, target)
		},
	}
	f := cmd.Flags()
	f.StringVar(&d.name, "name", "", "the app's name; else the folder's or the image's")
	f.StringVarP(&d.namespace, "namespace", "n", "", "the namespace to deploy to")
	f.StringArrayVar(&d.vars, "env", nil, "set the variable `NAME=VALUE`, or remove it with NAME-")
	f.StringVar(&d.envFile, "env-file", "", "set the variables in this file of NAME=VALUE lines")
	f.StringArrayVar(&d.secrets, "secret", nil, "keep a secret variable: `NAME=@FILE`, NAME=- (from standard input) or NAME (from this shell's variable); remove it with NAME-")
	f.Int32Var(&d.port, "port", 0, "the port the app listens on; else what the image exposes, or 8080. The app finds it in $PORT")
	f.Int32Var(&d.replicas, "replicas", 0, "how many copies run; else 1, or 2 where there are several machines")
	f.StringArrayVar(&d.domains, "domain", nil, "answer to this `NAME`, too, with a certificate; remove it with NAME-")
	f.StringVar(&d.health, "health", "", "what tells that a copy is healthy: a `PATH` for GET, :PORT/PATH, or tcp for a connection")
	f.StringVar(&d.memory, "memory", "", "memory of each copy, for example 256Mi")
	f.StringVar(&d.cpu, "cpu", "", "CPU promised to each copy, for example 500m")
	f.DurationVar(&d.timeout, "timeout", 5*time.Minute, "how long to wait until it is healthy")
	f.BoolVar(&d.noWait, "no-wait", false, "return as soon as the change is accepted")
	f.StringVar(&d.dockerfile, "dockerfile", "", "the Dockerfile, within the folder")
	f.BoolVar(&d.noCache, "no-cache", false, "build every step again")
	f.StringVarP(&d.output, "output", "o", "", `"json" for a machine to read`)
	return cmd
}

// deployed is the result for -o json.
type deployed struct {
	Name      string  `json:"name"`
	Namespace string  `json:"namespace"`
	URL       string  `json:"url,omitempty"`
	Image     string  `json:"image"`
	Revision  int64   `json:"revision,omitempty"`
	Seconds   float64 `json:"seconds"`
}

func (d *deployment) run(cmd *cobra.Command, target string) error {
	ctx, began := cmd.Context(), time.Now()
	if err := checkOutput(d.output); err != nil {
		return err
	}
	dir, err := isFolder(target)
	if err != nil {
		return err
	}
	change, err := d.change(cmd)
	if err != nil {
		return err
	}
	var manifest *v1alpha1.App
	if dir {
		if manifest, err = client.ReadManifest(os.DirFS(target)); err != nil {
			return fmt.Errorf("deploy %q: %w", target, err)
		}
	}
	if err := d.identify(target, dir, manifest); err != nil {
		return err
	}
	if manifest != nil {
		change.Whole = &manifest.Spec
		change.Domains = append(change.Domains, manifest.Spec.Domains...)
	}

	kube, err := d.env.restConfig()
	if err != nil {
		return err
	}
	apps, err := client.New(kube)
	if err != nil {
		return err
	}
	// What would be refused in the end is refused before the work.
	if err := apps.CheckNamespace(ctx, d.namespace); err != nil {
		return err
	}
	if err := apps.CheckHosts(ctx, d.namespace, d.name, change.Domains); err != nil {
		return err
	}
	switch {
	case !dir:
		err = d.resolve(ctx, apps, target, &change)
	case manifest != nil && manifest.Spec.Image != "":
		err = d.resolve(ctx, apps, manifest.Spec.Image, &change)
	default:
		err = d.build(ctx, kube, target, &change)
	}
	if err != nil {
		return err
	}
	change.Cause = "emerald deploy " + target
	app, err := d.rollout(ctx, apps, change)
	if err != nil {
		return err
	}
	if d.output == "json" {
		return json.NewEncoder(d.env.out).Encode(deployed{
			Name: app.Name, Namespace: app.Namespace, URL: app.Status.URL, Image: app.Spec.Image,
			Revision: app.Status.Revision, Seconds: time.Since(began).Round(time.Millisecond).Seconds(),
		})
	}
	if app.Status.URL != "" {
		fmt.Fprintln(d.env.out, app.Status.URL)
	}
	return nil
}

// isFolder tells whether the user means a folder, and refuses what is neither
// that nor an image.
func isFolder(target string) (bool, error) {
	info, err := os.Stat(target)
	switch {
	case err == nil && info.IsDir():
		return true, nil
	case err == nil:
		return false, fmt.Errorf("deploy %q: it is a file: give the folder it is in", target)
	case strings.HasPrefix(target, ".") || strings.HasPrefix(target, "/") || strings.HasSuffix(target, "/"):
		return false, fmt.Errorf("deploy %q: there is no such folder", target)
	}
	if _, err := client.NameOfImage(target); err != nil && !strings.ContainsAny(target, ":@") {
		return false, fmt.Errorf("deploy %q: there is no such folder, and it is no image", target)
	}
	return false, nil
}

// identify settles the app's name and namespace.
func (d *deployment) identify(target string, dir bool, manifest *v1alpha1.App) (err error) {
	if manifest != nil {
		if d.name == "" {
			d.name = manifest.Name
		}
		if d.namespace == "" {
			d.namespace = manifest.Namespace
		}
	}
	if d.namespace == "" {
		d.namespace = d.env.namespace()
	}
	switch {
	case d.name != "":
		return client.CheckName(d.name)
	case dir:
		d.name, err = client.NameOfDir(target)
	default:
		d.name, err = client.NameOfImage(target)
	}
	return err
}

// change reads the flags.
func (d *deployment) change(cmd *cobra.Command) (client.Change, error) {
	c := client.Change{Env: map[string]*string{}, Secrets: map[string][]byte{}}
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	set := cmd.Flags().Changed

	if d.envFile != "" {
		vars, err := readEnvFile(d.envFile)
		if err != nil {
			errs = append(errs, err)
		}
		for name, value := range vars {
			c.Env[name] = &value
		}
	}
	for _, v := range d.vars {
		name, value, given := strings.Cut(v, "=")
		removed, remove := strings.CutSuffix(v, "-")
		switch {
		case given && name != "":
			if err := client.CheckVariable(name); err != nil {
				errs = append(errs, err)
			}
			c.Env[name] = &value
		case remove && removed != "":
			c.Env[removed] = nil
		default:
			fail("--env %s: write NAME=VALUE, or NAME- to remove it", v)
		}
	}
	for _, s := range d.secrets {
		name, value, err := d.readSecret(s)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if err := client.CheckVariable(name); err != nil {
			errs = append(errs, err)
		}
		c.Secrets[name] = value
	}
	for _, domain := range d.domains {
		if name, drop := strings.CutSuffix(domain, "-"); drop {
			c.DropDomains = append(c.DropDomains, v1alpha1.Domain(name))
			continue
		}
		name := v1alpha1.Domain(strings.ToLower(strings.TrimSuffix(domain, ".")))
		if err := client.CheckDomain(name); err != nil {
			errs = append(errs, err)
		}
		c.Domains = append(c.Domains, name)
	}
	if set("port") {
		if c.Port = d.port; d.port < 1 || d.port > 65535 {
			fail("--port %d: use 1 to 65535", d.port)
		}
	}
	if set("replicas") {
		if c.Replicas = &d.replicas; d.replicas < 0 || d.replicas > 1000 {
			fail("--replicas %d: use 0 to 1000", d.replicas)
		}
	}
	if set("health") {
		health, err := parseHealth(d.health)
		if err != nil {
			errs = append(errs, err)
		}
		c.Health = &health
	}
	quantity := func(flag, value, like string) *resource.Quantity {
		if !set(flag) {
			return nil
		}
		q, err := resource.ParseQuantity(value)
		if err != nil || q.Sign() <= 0 {
			fail("--%s %s: write an amount like %s", flag, value, like)
		}
		return &q
	}
	c.Memory = quantity("memory", d.memory, "256Mi")
	c.CPU = quantity("cpu", d.cpu, "500m")
	return c, errors.Join(errs...)
}

func readEnvFile(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read variables: %w", err)
	}
	defer f.Close()
	vars, err := client.ReadEnv(f)
	if err != nil {
		return nil, fmt.Errorf("read variables from %s: %w", path, err)
	}
	return vars, nil
}

// maxSecret is the most that a Secret can hold in all.
const maxSecret = 1 << 20

// readSecret reads one --secret: its name and value, nil to remove it. Values
// come from files and variables, which, unlike arguments, other users of the
// machine and the shell's history do not see.
func (d *deployment) readSecret(flag string) (string, []byte, error) {
	name, source, given := strings.Cut(flag, "=")
	removed, remove := strings.CutSuffix(flag, "-")
	switch {
	case given && source == "-":
		value, err := io.ReadAll(io.LimitReader(d.env.in, maxSecret))
		if err != nil {
			return "", nil, fmt.Errorf("read secret %s from standard input: %w", name, err)
		}
		return name, trimEnd(value), nil
	case given && strings.HasPrefix(source, "@"):
		value, err := os.ReadFile(source[1:])
		if err != nil {
			return "", nil, fmt.Errorf("read secret %s: %w", name, err)
		}
		return name, trimEnd(value), nil
	case given:
		fmt.Fprintf(d.env.err, "note: the value of secret %s was visible to other users of this machine: next time use %s=@FILE or %s=-\n", name, name, name)
		return name, []byte(source), nil
	case remove:
		return removed, nil, nil
	}
	value, ok := os.LookupEnv(flag)
	if !ok {
		return "", nil, fmt.Errorf("--secret %s: this shell has no variable %s: export it, or use %s=@FILE", flag, flag, flag)
	}
	return flag, []byte(value), nil
}

// trimEnd takes off the line end that editors and echo add. The result is never
// nil.
func trimEnd(value []byte) []byte {
	return append([]byte{}, strings.TrimSuffix(strings.TrimSuffix(string(value), "\n"), "\r")...)
}

// parseHealth reads --health.
func parseHealth(s string) (v1alpha1.Health, error) {
	if s == "tcp" {
		return v1alpha1.Health{}, nil
	}
	var h v1alpha1.Health
	if rest, ok := strings.CutPrefix(s, ":"); ok {
		digits, path, _ := strings.Cut(rest, "/")
		port, err := strconv.ParseUint(digits, 10, 16)
		if err != nil || port == 0 {
			return h, fmt.Errorf("--health %s: write a path like /healthz, :9000/healthz, or tcp", s)
		}
		h.Port = int32(port)
		s = strings.TrimPrefix(rest, digits)
		if path == "" && s == "" {
			return h, nil
		}
	}
	if !strings.HasPrefix(s, "/") || strings.ContainsAny(s, " \t\n") {
		return h, fmt.Errorf("--health %s: write a path like /healthz, :9000/healthz, or tcp", s)
	}
	h.Path = s
	return h, nil
}

// build makes the image of a folder.
func (d *deployment) build(ctx context.Context, kube *rest.Config, dir string, change *client.Change) error {
	result, err := build.Build(ctx, kube, build.Request{
		Dir: dir, Dockerfile: d.dockerfile, Image: d.namespace + "/" + d.name, Namespace: d.namespace,
		NoCache: d.noCache, Progress: d.env.err,
	})
	if err != nil {
		return err
	}
	for _, note := range result.Notes {
		fmt.Fprintln(d.env.err, "note:", note)
	}
	change.Image = result.Image
	change.ImageUser = client.UserKind(result.Config.User)
	change.ImagePort = client.ExposedPort(result.Config)
	return nil
}

// resolve finds out what an image reference means now.
func (d *deployment) resolve(ctx context.Context, apps *client.Client, ref string, change *client.Change) error {
	image, err := apps.Resolve(ctx, d.namespace, ref)
	switch {
	case errors.Is(err, client.ErrUnreachable) && !strings.ContainsAny(ref, "/:@"):
		return fmt.Errorf("deploy %q: there is no such folder here, and the registry where an image of that name would be cannot be asked: "+
			"for a folder give its path, for an image its whole name, like docker.io/library/%s:latest", ref, ref)
	case errors.Is(err, client.ErrUnreachable):
		fmt.Fprintf(d.env.err, "note: %v: the cluster pulls it by that name\n", err)
		change.Image = ref
		return nil
	case errors.Is(err, client.ErrNoImage):
		return fmt.Errorf("deploy: %w: see what there is with: emerald registry list", err)
	case err != nil:
		return fmt.Errorf("deploy: %w", err)
	}
	change.Image, change.ImageUser, change.ImagePort = image.Ref, image.User, image.Port
	return nil
}

// rollout applies the change and waits for it.
func (d *deployment) rollout(ctx context.Context, apps *client.Client, change client.Change) (*v1alpha1.App, error) {
	started, err := apps.Deploy(ctx, d.namespace, d.name, change)
	if err != nil {
		return nil, err
	}
	if d.noWait {
		fmt.Fprintf(d.env.err, "%s is being rolled out: emerald app show %s\n", d.name, d.name)
		return started.App, nil
	}
	return followRollout(ctx, d.env, apps, started, d.timeout)
}
