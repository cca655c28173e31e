package cli

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/emerald-platform/emerald/batteries/certs"
	"github.com/emerald-platform/emerald/platform/truststore"
)

// newTrustCommand makes the host trust the platform's certificates.
func newTrustCommand(e *env) *cobra.Command {
	var undo, toStdout bool
	cmd := &cobra.Command{
		Use:   "trust",
		Short: "Make this host trust the platform's certificates",
		Long: `Adds the roots of the platform's own authority to those that this host trusts,
so that curl, git and most other programs accept https:// addresses of the
platform. Browsers mostly keep authorities of their own: how to add it there is
printed. It needs the rights of root, and is undone with --undo.

Whoever holds the platform's key could then vouch for any name to this host: do
it for platforms you run yourself.`,
		Example: `  sudo emerald trust
  sudo emerald trust --undo
  emerald trust --print > ca.crt && curl --cacert ca.crt https://go.emerald.localhost/`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if undo && toStdout {
				return errors.New("--undo and --print exclude each other: give one")
			}
			if undo {
				return e.distrust(cmd)
			}
			var store truststore.Store
			if !toStdout {
				var err error
				if store, err = e.openStore("trust"); err != nil {
					return err
				}
			}
			kube, err := e.restConfig()
			if err != nil {
				return err
			}
			roots, err := certs.Roots(cmd.Context(), kube)
			if errors.Is(err, certs.ErrNoRoots) {
				return fmt.Errorf("trust the platform: %w: see what it waits for with: emerald status", err)
			}
			if err != nil {
				return fmt.Errorf("trust the platform: %w", err)
			}
			if toStdout {
				_, err := e.out.Write(certs.PEM(roots))
				return err
			}
			if err := e.trust(cmd, store, roots); err != nil {
				return err
			}
			return noteTrust(defaultDirs(), kube.Host, store, roots)
		},
	}
	cmd.Flags().BoolVar(&undo, "undo", false, "take every platform's roots away from this host again")
	cmd.Flags().BoolVar(&toStdout, "print", false, "write the roots to standard output as PEM and change nothing")
	e.explainSilence(cmd)
	return cmd
}

// trust adds the roots to the host's authorities and says so.
func (e *env) trust(cmd *cobra.Command, store truststore.Store, roots []*x509.Certificate) error {
	files, err := store.Add(cmd.Context(), roots)
	if err != nil {
		return fmt.Errorf("trust the platform: %w", err)
	}
	fmt.Fprintln(e.out, "This host now trusts the platform's certificates:")
	for i, c := range roots {
		fmt.Fprintf(e.out, "\n  %s, valid until %s\n  SHA-256 %s\n  %s\n",
			c.Subject.CommonName, c.NotAfter.Format("2 January 2006"), fingerprint(c), files[i])
	}
	fmt.Fprintf(e.out, `
Programs that run already may have to be started again. Browsers keep their own:
  Firefox           Settings, Privacy & Security, View Certificates, Authorities,
                    Import: %[1]s
  Chrome, Chromium  certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n emerald -i %[1]s
                    (Debian: apt install libnss3-tools)

Undo:  sudo emerald trust --undo
`, files[0])
	return nil
}

// distrust takes away what trust has added.
func (e *env) distrust(cmd *cobra.Command) error {
	store, err := e.openStore("trust --undo")
	if err != nil {
		return err
	}
	files, err := store.Remove(cmd.Context())
	if err != nil {
		return fmt.Errorf("undo the trust: %w", err)
	}
	if len(files) == 0 {
		fmt.Fprintln(e.out, "This host trusts no platform: nothing to undo.")
		return nil
	}
	fmt.Fprintln(e.out, "This host no longer trusts the platform's certificates. Removed:")
	for _, f := range files {
		fmt.Fprintf(e.out, "  %s\n", f)
	}
	fmt.Fprintln(e.out, "\nWhat you added to browsers yourself stays: remove it there.")
	return nil
}

// openStore returns the host's store, and an error for those who may not change
// it; command is what they wanted.
func (e *env) openStore(command string) (truststore.Store, error) {
	store, err := truststore.Find("/")
	if errors.Is(err, truststore.ErrUnknown) {
		return store, fmt.Errorf("find the authorities this host trusts: %w: "+
			"install the package ca-certificates, or add the roots by hand: emerald trust --print > emerald-ca.crt", err)
	}
	if err != nil {
		return store, fmt.Errorf("find the authorities this host trusts: %w", err)
	}
	if os.Geteuid() != 0 {
		return store, fmt.Errorf("change the authorities in %s: only root may: run: sudo %s", store.Dir, e.again(command))
	}
	return store, nil
}

// again returns the command line that does the same as root, who has a
// kubeconfig of their own.
func (e *env) again(command string) string {
	out := "emerald " + command
	path := e.kubeconfig
	if path == "" {
		path = os.Getenv("KUBECONFIG")
	}
	if path == "" {
		path = filepath.Join(os.Getenv("HOME"), ".kube", "config")
		if !readable(path) {
			return out
		}
	}
	out += " --kubeconfig " + path
	if e.context != "" {
		out += " --context " + e.context
	}
	return out
}

// fingerprint returns a certificate's SHA-256 the way browsers show it.
func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	var out []string
	for _, b := range sum {
		out = append(out, fmt.Sprintf("%02X", b))
	}
	return strings.Join(out, ":")
}
