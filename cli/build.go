package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	build "github.com/emerald-platform/emerald/batteries/build/client"
	"github.com/emerald-platform/emerald/batteries/build/detect"
)

// building is one call of `emerald build`.
type building struct {
	env *env

	image, namespace, dockerfile, target string
	args                                 []string
	noCache, print                       bool
	progress, output                     string
}

func newBuildCommand(e *env) *cobra.Command {
	b := &building{env: e}
	cmd := &cobra.Command{
		Use:   "build [DIR]",
		Short: "Make an image of a folder",
		Long: `Build sends the folder to the cluster's builder, builds its Dockerfile, or what it
finds (Go, Node.js, Python, a static site), and pushes the image to the platform's
registry. Only what changed since the last build is sent and built.

The image's full name, by digest, is printed when it is there.`,
		Example: `  emerald build -t default/shop
  emerald build ./shop -t default/shop:v2 --build-arg VERSION=2
  emerald build --print-dockerfile ./shop > shop/Dockerfile`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := "."
			if len(args) > 0 {
				dir = args[0]
			}
			return b.run(cmd, dir)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&b.image, "tag", "t", "", "push the image as `NAMESPACE/APP[:TAG]`; without it nothing is pushed")
	f.StringVarP(&b.namespace, "namespace", "n", "", "the namespace whose registry rights count; else the image's")
	f.StringVarP(&b.dockerfile, "file", "f", "", "the Dockerfile, within the folder")
	f.StringVar(&b.target, "target", "", "the stage to build; else the last")
	f.StringArrayVar(&b.args, "build-arg", nil, "set the build argument `NAME=VALUE`; NAME alone takes it from this shell")
	f.BoolVar(&b.noCache, "no-cache", false, "build every step again")
	f.BoolVar(&b.print, "print-dockerfile", false, "print how the folder is built, and build nothing")
	f.StringVar(&b.progress, "progress", "auto", `"auto", "plain" for lines, "tty" for a live view, "quiet"`)
	f.StringVarP(&b.output, "output", "o", "", `"json" for a machine to read`)
	e.explainSilence(cmd)
	return cmd
}

// built is the result for -o json.
type built struct {
	Image    string   `json:"image,omitempty"`
	Digest   string   `json:"digest"`
	Detected string   `json:"detected,omitempty"`
	Port     int32    `json:"port,omitempty"`
	User     string   `json:"user,omitempty"`
	Notes    []string `json:"notes,omitempty"`
	Seconds  float64  `json:"seconds"`
}

func (b *building) run(cmd *cobra.Command, dir string) error {
	if b.print {
		return b.printDockerfile(dir)
	}
	switch {
	case b.output != "" && b.output != "json":
		return checkOutput(b.output)
	case b.progress != "auto" && b.progress != "plain" && b.progress != "tty" && b.progress != "quiet":
		return fmt.Errorf("progress %q: use auto, plain, tty or quiet", b.progress)
	}
	kube, err := b.env.restConfig()
	if err != nil {
		return err
	}
	began := time.Now()
	result, err := build.Build(cmd.Context(), kube, build.Request{
		Dir: dir, Dockerfile: b.dockerfile, Image: b.image, Namespace: b.account(), Target: b.target,
		BuildArgs: buildArgs(b.args), NoCache: b.noCache, Progress: b.env.err, Display: b.progress,
	})
	if err != nil {
		return err
	}
	if b.output == "json" {
		return json.NewEncoder(b.env.out).Encode(built{
			Image: result.Image, Digest: result.Digest, Detected: result.Detected, Port: result.Port(), User: result.Config.User,
			Notes: result.Notes, Seconds: time.Since(began).Round(time.Millisecond).Seconds(),
		})
	}
	if result.Image == "" {
		fmt.Fprintf(b.env.err, "Built %s; nothing was pushed: name the image with -t NAMESPACE/APP\n", result.Digest)
		return nil
	}
	_, err = fmt.Fprintln(b.env.out, result.Image)
	return err
}

// account returns the namespace whose service account the build logs in as.
func (b *building) account() string {
	if b.namespace != "" {
		return b.namespace
	}
	parts := strings.Split(b.image, "/")
	switch {
	case len(parts) == 2 && !strings.ContainsAny(parts[0], ".:"):
		return parts[0]
	case len(parts) > 2:
		return parts[1]
	}
	return b.env.namespace()
}

func buildArgs(args []string) map[string]string {
	out := make(map[string]string, len(args))
	for _, a := range args {
		name, value, ok := strings.Cut(a, "=")
		if !ok {
			value = os.Getenv(name)
		}
		out[name] = value
	}
	return out
}

// printDockerfile shows how a folder is built, without a cluster.
func (b *building) printDockerfile(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("read the folder: %w", err)
	}
	defer root.Close()
	name := b.dockerfile
	if name == "" {
		name = "Dockerfile"
	}
	if f, err := root.Open(name); err == nil {
		defer f.Close()
		_, err = io.Copy(b.env.out, f)
		return err
	} else if b.dockerfile != "" {
		return fmt.Errorf("read the Dockerfile: %w", err)
	}
	plan, err := detect.Dockerfile(root.FS())
	if err != nil {
		return fmt.Errorf("build %q: %w", dir, err)
	}
	_, err = io.WriteString(b.env.out, plan.Dockerfile)
	return err
}
