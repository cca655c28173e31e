package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/emerald-platform/emerald/batteries/registry/client"
)

// registryCommand is what the commands about the registry have in common.
type registryCommand struct {
	env       *env
	namespace string
	output    string
}

func newRegistryCommand(e *env) *cobra.Command {
	r := &registryCommand{env: e}
	cmd := &cobra.Command{
		Use:   "registry",
		Short: "Log in to the image registry, see and remove what it holds",
	}
	cmd.PersistentFlags().StringVarP(&r.namespace, "namespace", "n", "", "the namespace whose images are meant")
	cmd.AddCommand(r.login(), r.list(), r.delete(), r.collect())
	e.explainSilence(cmd)
	return cmd
}

func (r *registryCommand) home() string {
	if r.namespace != "" {
		return r.namespace
	}
	return r.env.namespace()
}

// open connects to the registry as its administrator when the user may be that,
// else with the rights of the namespace.
func (r *registryCommand) open(ctx context.Context) (*client.Client, error) {
	if err := checkOutput(r.output); err != nil {
		return nil, err
	}
	kube, err := r.env.restConfig()
	if err != nil {
		return nil, err
	}
	c, err := client.Connect(ctx, kube, client.Admin)
	if apierrors.IsForbidden(err) {
		return client.Connect(ctx, kube, client.Account{Namespace: r.home(), Name: "default"})
	}
	return c, err
}

func (r *registryCommand) jsonFlag(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&r.output, "output", "o", "", `"json" for a machine to read`)
}

func (r *registryCommand) json(v any) error {
	enc := json.NewEncoder(r.env.out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func (r *registryCommand) login() *cobra.Command {
	var (
		account string
		life    time.Duration
		show    bool
	)
	cmd := &cobra.Command{
		Use:   "login",
		Short: "Get a password for docker, podman and other clients",
		Long: `Gets a password with the rights of a service account, which is valid for a
while, and puts it where docker and most other clients look for it. A service
account may pull and push the images of its own namespace, and pull copies of
other registries' images; roles give it more.`,
		Example: `  emerald registry login
  docker push registry.emerald.localhost/default/hello:1

  emerald registry login --print | podman login --username token --password-stdin registry.emerald.localhost`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			kube, err := r.env.restConfig()
			if err != nil {
				return err
			}
			server, err := client.Server(cmd.Context(), kube)
			if err != nil {
				return err
			}
			creds, err := client.Login(cmd.Context(), kube, server, client.Account{Namespace: r.home(), Name: account}, life)
			if err != nil {
				return err
			}
			if show {
				_, err := fmt.Fprintln(r.env.out, creds.Password)
				return err
			}
			file, err := client.DockerConfig()
			if err != nil {
				return err
			}
			if err := creds.Save(cmd.Context(), file); err != nil {
				return err
			}
			fmt.Fprintf(r.env.err, "logged in to %s as service account %s of namespace %s until %s\n",
				server, account, r.home(), creds.Expires.Local().Format("2 Jan 15:04"))
			fmt.Fprintf(r.env.err, "push with: docker push %s/%s/NAME:TAG (when docker does not trust the registry: sudo emerald trust)\n", server, r.home())
			return nil
		},
	}
	cmd.Flags().StringVar(&account, "account", "default", "the service account of the namespace whose rights you get")
	cmd.Flags().DurationVar(&life, "for", 12*time.Hour, "how long the password is valid")
	cmd.Flags().BoolVar(&show, "print", false, "print the password instead of storing it")
	return cmd
}

// storedImage is one line of `emerald registry list REPOSITORY`.
type storedImage struct {
	Repository string        `json:"repository"`
	Tag        string        `json:"tag"`
	Digest     digest.Digest `json:"digest"`
}

func (r *registryCommand) list() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "list [REPOSITORY]", Aliases: []string{"ls"}, Short: "List repositories, or the tags of one",
		Example: "  emerald registry list\n  emerald registry list --all-namespaces\n  emerald registry list default/hello",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := r.open(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			if len(args) == 1 {
				return r.listTags(cmd.Context(), c, repositoryOf(args[0], c.Server()))
			}
			namespace := r.home()
			if all {
				namespace = ""
			}
			names, err := c.Repositories(cmd.Context(), namespace)
			if err != nil {
				return err
			}
			if r.output == "json" {
				return r.json(append([]string{}, names...))
			}
			if len(names) == 0 {
				fmt.Fprintln(r.env.err, "there are no images here yet: make one with: emerald deploy")
			}
			return printLines(r.env.out, names)
		},
	}
	cmd.Flags().BoolVarP(&all, "all-namespaces", "A", false, "those of all namespaces, and copies of other registries'")
	r.jsonFlag(cmd)
	return cmd
}

func printLines(out io.Writer, lines []string) error {
	for _, line := range lines {
		if _, err := fmt.Fprintln(out, line); err != nil {
			return err
		}
	}
	return nil
}

func (r *registryCommand) listTags(ctx context.Context, c *client.Client, repository string) error {
	tags, err := c.Tags(ctx, repository)
	if err != nil {
		return fmt.Errorf("list the tags of %s: %w", repository, err)
	}
	images := make([]storedImage, len(tags))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i, tag := range tags {
		g.Go(func() error {
			d, err := c.Digest(gctx, repository, tag)
			if errors.Is(err, client.ErrNotFound) {
				err = nil // removed meanwhile
			}
			images[i] = storedImage{Repository: repository, Tag: tag, Digest: d}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("list the tags of %s: %w", repository, err)
	}
	if r.output == "json" {
		return r.json(images)
	}
	t := tabwriter.NewWriter(r.env.out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "TAG\tDIGEST")
	for _, image := range images {
		fmt.Fprintf(t, "%s\t%s\n", image.Tag, image.Digest)
	}
	return t.Flush()
}

// repositoryOf accepts a repository with or without the registry's own name.
func repositoryOf(image, server string) string { return strings.TrimPrefix(image, server+"/") }

func (r *registryCommand) delete() *cobra.Command {
	return &cobra.Command{
		Use: "delete REPOSITORY:TAG | REPOSITORY@DIGEST", Aliases: []string{"rm"}, Short: "Remove a tag, or an image with all its tags",
		Example: "  emerald registry delete default/hello:1\n  emerald registry delete default/hello@sha256:…",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := r.open(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			image := repositoryOf(args[0], c.Server())
			repository, reference, ok := strings.Cut(image, "@")
			if !ok {
				i := strings.LastIndexByte(image, ':')
				if i < 0 {
					return fmt.Errorf("image %q names neither tag nor digest: see which there are with: emerald registry list %s", args[0], image)
				}
				repository, reference = image[:i], image[i+1:]
			}
			if err := c.Delete(cmd.Context(), repository, reference); err != nil {
				return fmt.Errorf("delete %s: %w", image, err)
			}
			fmt.Fprintf(r.env.err, "deleted %s: its space comes back with: emerald registry gc\n", image)
			return nil
		},
	}
}

func (r *registryCommand) collect() *cobra.Command {
	cmd := &cobra.Command{
		Use: "gc", Short: "Remove what no image needs any more, now",
		Long: `Removes layers that no image names, uploads that nobody finished, and what else
the settings of the battery "registry" say. The registry does that by itself
twice a day; pushes and pulls go on meanwhile.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := r.open(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			done, err := c.Collect(cmd.Context())
			if err != nil {
				return fmt.Errorf("remove garbage: %w", err)
			}
			if r.output == "json" {
				return r.json(done)
			}
			_, err = fmt.Fprintf(r.env.out, "removed %d images, %d blobs and %d unfinished uploads: %.1f MiB freed\n",
				done.Images, done.Blobs, done.Uploads, float64(done.Bytes)/(1<<20))
			return err
		},
	}
	r.jsonFlag(cmd)
	return cmd
}
