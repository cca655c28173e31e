//go:build e2e

// Package badinput gives the platform what people and accidents give it: each
// time it must answer with one error that names the object, the cause and the
// next command, and an exit code that is not 0, and leave nothing half-made.
package badinput

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/emerald-platform/emerald/e2e/fixture"
)

// refused runs the program, which must fail with the exit code and an error
// that says all of want. Standard output, which scripts read, must stay empty.
func refused(t *testing.T, m *fixture.Machine, code int, args []string, want ...string) {
	t.Helper()
	out, errOut, err := m.Try(args...)
	check(t, out, errOut, err, code, want)
}

func check(t *testing.T, out, errOut string, err error, code int, want []string) {
	t.Helper()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != code {
		t.Errorf("it ended with %v, want exit code %d", err, code)
	}
	if out != "" {
		t.Errorf("standard output has %q", out)
	}
	for _, w := range want {
		if !strings.Contains(errOut, w) {
			t.Errorf("the error does not say %q:\n%s", w, errOut)
		}
	}
}

// asNobody runs the program on the machine as a user without rights.
func asNobody(t *testing.T, m *fixture.Machine, args ...string) (out, errOut string, err error) {
	t.Helper()
	cmd := m.Command(t.Context(), fixture.Binary(t), args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	cmd.Dir = "/"
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = m.Run(cmd)
	return stdout.String(), stderr.String(), err
}

// Before the first start: what keeps a host from being a machine is named, all
// at once, and nothing is made.
func TestHost(t *testing.T) {
	m := fixture.New(t)
	up := append([]string{"up"}, m.UpFlags()...)
	untouched := func(t *testing.T) {
		t.Helper()
		if _, err := os.Stat(filepath.Join(m.Dirs.Data, "pki")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("keys were made: %v", err)
		}
	}
	t.Run("not root", func(t *testing.T) {
		for _, args := range [][]string{{"up"}, {"down"}, {"down", "--wipe", "--yes"}} {
			out, errOut, err := asNobody(t, m, args...)
			check(t, out, errOut, err, 1, []string{"root", "sudo emerald " + args[0]})
		}
		untouched(t)
	})
	t.Run("ports taken", func(t *testing.T) {
		var taken []net.Listener
		err := m.Do(func() error {
			for _, port := range []int{80, 443, 6443, 10250} {
				l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
				if err != nil {
					return err
				}
				taken = append(taken, l)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		refused(t, m, 1, up, "for 4 reasons", fmt.Sprintf("port 80 (tcp) is taken by %s (process %d)", ownName(t), os.Getpid()), "port 443", "port 6443", "the Kubernetes API needs it",
			"port 10250", fmt.Sprintf("kill %d", os.Getpid()))
		for _, l := range taken {
			l.Close()
		}
		untouched(t)
	})
	t.Run("no disk", func(t *testing.T) {
		if err := os.MkdirAll(m.Dirs.Data, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", m.Dirs.Data, "tmpfs", 0, "size=64m"); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := unix.Unmount(m.Dirs.Data, 0); err != nil {
				t.Error(err)
			}
		}()
		refused(t, m, 1, up, m.Dirs.Data, "64.0 MiB left, 5.0 GiB are needed", "free some")
		untouched(t)
	})
	t.Run("clock off", func(t *testing.T) {
		path := filepath.Join(m.Dirs.Data, "stopped")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		tomorrow := time.Now().Add(24 * time.Hour)
		if err := os.Chtimes(path, tomorrow, tomorrow); err != nil {
			t.Fatal(err)
		}
		refused(t, m, 1, up, "the clock says", "data was written on", "timedatectl set-ntp true")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		untouched(t)
	})
	t.Run("data of a newer version", func(t *testing.T) {
		path := filepath.Join(m.Dirs.Data, "machine.json")
		newer := []byte(`{"dataVersion": 99, "node": "one", "address": "192.0.2.1", "domain": "emerald.localhost", "unheardOf": 1}`)
		if err := os.WriteFile(path, newer, 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, m, 1, up, m.Dirs.Data, "a newer version of emerald wrote it", "layout 99", "run that version", "emerald down --wipe")
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, newer) {
			t.Errorf("the settings are now %q, %v", now, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		untouched(t)
	})
	t.Run("names that are none", func(t *testing.T) {
		refused(t, m, 1, []string{"up", "--node", "No_de", "--address", "here", "--domain", "10.0.0.1"}, `"No_de"`, "--node", `"here"`, "--address", `"10.0.0.1"`)
		untouched(t)
	})
	t.Run("no cluster", func(t *testing.T) {
		refused(t, m, 1, []string{"app", "list", "-o", "json"}, "find the cluster", "emerald up")
		refused(t, m, 1, []string{"kubeconfig"}, "none was ever started here", "emerald up")
	})
}

// ownName returns the name of this process as the kernel tells it.
func ownName(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(raw))
}

// settings make the registry refuse what is not small, so that too much is not
// much.
const settings = `apiVersion: emerald.dev/v1alpha1
kind: Platform
spec:
  batteries:
    registry:
      config: {maxBlob: %s}
`

// write makes a file of a folder that is deployed.
func write(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// appFolder returns a folder with an app that does what its variables say.
func appFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", filepath.Join(dir, "app"), "./testdata/app")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the app: %v\n%s", err, out)
	}
	write(t, dir, "Dockerfile", "FROM scratch\nCOPY app /app\nUSER 1000\nENTRYPOINT [\"/app\"]\n")
	return dir
}

// While it runs: what is asked for wrongly is refused, and what runs goes on.
func TestRunning(t *testing.T) {
	m := fixture.New(t)
	config := write(t, t.TempDir(), "emerald.yaml", fmt.Sprintf(settings, "4Mi"))
	up := append([]string{"up", "--config", config}, m.UpFlags()...)
	m.Emerald(up...)
	folder := appFolder(t)
	if url := strings.TrimSpace(m.Emerald("deploy", folder, "--name", "shop", "--env", "SAY=first", "--domain", "shop.example.com")); url != "https://shop.emerald.localhost" {
		t.Fatalf("deploy printed %q", url)
	}
	browser := m.Browser()
	serves := func(t *testing.T) {
		t.Helper()
		if got := m.Get(browser, "https://shop.emerald.localhost/"); got != "first" {
			t.Errorf("the app says %q, want %q", got, "first")
		}
	}
	absent := func(t *testing.T, app string) {
		t.Helper()
		refused(t, m, 1, []string{"app", "show", app, "-o", "json"}, fmt.Sprintf("app %q", app), "it does not exist", "emerald app list")
	}
	t.Run("deploy", func(t *testing.T) {
		empty, broken, big := t.TempDir(), t.TempDir(), t.TempDir()
		write(t, broken, "Dockerfile", "FROM scratch\nCOPY nothing /\n")
		write(t, big, "Dockerfile", "FROM scratch\nCOPY blob /\n")
		write(t, big, "blob", random(t, 5<<20))
		tests := map[string]struct {
			args []string
			want []string
		}{
			"an empty folder":     {[]string{empty}, []string{"found no Dockerfile", "go.mod", "package.json", "add one of them"}},
			"a broken Dockerfile": {[]string{broken}, []string{"Dockerfile:2", `"/nothing" is not in the folder`, ">>> COPY nothing /"}},
			"too much":            {[]string{big}, []string{"larger than the 4 MiB", "maxBlob", "registry"}},
			"an image that is not there": {[]string{"registry.emerald.localhost/default/nothing:1"},
				[]string{"the registry has no such image", "emerald registry list"}},
			"a word":              {[]string{"nothing"}, []string{"there is no such folder here", "docker.io/library/nothing:latest"}},
			"a taken host name":   {[]string{folder, "--domain", "shop.example.com"}, []string{"shop.example.com is taken by app default/shop", "choose another"}},
			"a reserved name":     {[]string{folder, "--name", "registry"}, []string{"registry.emerald.localhost belongs to the platform", "choose another name"}},
			"no DNS label":        {[]string{folder, "--name", "My_Shop"}, []string{`"My_Shop"`, "at most 63"}},
			"no variable":         {[]string{folder, "--env", "1A=x", "--env", "A B=y"}, []string{`"1A"`, `"A B"`, "LOG_LEVEL"}},
			"no namespace":        {[]string{folder, "--namespace", "nowhere"}, []string{`namespace "nowhere" does not exist`, "create namespace nowhere"}},
			"an app that ends":    {[]string{folder, "--env", "EXIT=3", "--timeout", "5s"}, []string{"exit code 3", "cannot open the database", "emerald app delete bad"}},
			"a port nobody hears": {[]string{folder, "--port", "1234", "--env", "LISTEN=4321", "--timeout", "5s"}, []string{"nothing accepts connections on port 1234", "emerald deploy --port N"}},
		}
		for name, tt := range tests {
			t.Run(name, func(t *testing.T) {
				args := append([]string{"deploy", "--name", "bad", "-o", "json"}, tt.args...)
				refused(t, m, 1, args, tt.want...)
				if strings.Contains(name, "app that ends") || strings.Contains(name, "nobody hears") {
					// Its logs are what one wants to see now.
					m.Emerald("app", "delete", "bad", "--yes")
				}
				absent(t, "bad")
			})
		}
		serves(t)
	})
	t.Run("an image that no registry gives", func(t *testing.T) {
		refused(t, m, 1, []string{"deploy", "registry.invalid/nothing:1", "--name", "bad"}, `image "registry.invalid/nothing:1" cannot be pulled`, "nothing was changed")
		absent(t, "bad")
	})
	t.Run("a new version that does not run", func(t *testing.T) {
		refused(t, m, 1, []string{"deploy", folder, "--name", "shop", "--env", "EXIT=3", "--timeout", "5s"}, "exit code 3", "keeps serving its former version", "emerald app rollback shop")
		serves(t)
		m.Emerald("app", "rollback", "shop")
		serves(t)
	})
	t.Run("apps that are not there", func(t *testing.T) {
		for _, args := range [][]string{{"show", "nothing"}, {"logs", "nothing"}, {"scale", "nothing", "2"}, {"rollback", "nothing"}, {"delete", "nothing", "--yes"}} {
			refused(t, m, 1, append([]string{"app"}, args...), `app "nothing" in namespace "default": it does not exist`, "emerald app list")
		}
		refused(t, m, 1, []string{"app", "rollback", "shop", "--to", "99"}, "there is no revision 99", "emerald app show shop")
		refused(t, m, 1, []string{"app", "delete", "shop"}, "nothing was done", "--yes")
		refused(t, m, 2, []string{"verify", "nothing"}, `no proof of "nothing"`)
		serves(t)
	})
	t.Run("settings", func(t *testing.T) {
		bad := write(t, t.TempDir(), "emerald.yaml", fmt.Sprintf(settings, "lots")+"    dsn: {}\n")
		refused(t, m, 1, append([]string{"up", "--config", bad}, m.UpFlags()...), `no battery "dsn"`)
		refused(t, m, 1, append(up, "--domain", "other.example.com"), `started with "emerald.localhost"`, "emerald down --wipe")
		if got := m.Emerald("kubectl", "get", "platform", "emerald", "-o", "jsonpath={.spec.batteries.registry.config.maxBlob}"); got != "4Mi" {
			t.Errorf("the registry takes blobs of %q, want 4Mi", got)
		}
		write(t, filepath.Dir(config), "emerald.yaml", fmt.Sprintf(settings, "5Mi"))
		m.Emerald(up...)
		if got := m.Emerald("kubectl", "get", "platform", "emerald", "-o", "jsonpath={.spec.batteries.registry.config.maxBlob}"); got != "5Mi" {
			t.Errorf("the registry takes blobs of %q, want 5Mi", got)
		}
		serves(t)
	})
	t.Run("not root", func(t *testing.T) {
		out, errOut, err := asNobody(t, m, "app", "list")
		check(t, out, errOut, err, 1, []string{"the one of this machine is root's", "sudo emerald kubeconfig"})
	})
	t.Run("power loss", func(t *testing.T) {
		powerLoss(t, m, up, func() {
			// Its copies start when the platform's own pods do.
			m.Eventually("the app serves again", 3*time.Minute, func(ctx context.Context) error { return says(ctx, browser, "first") })
		})
	})
}

// says returns nil when the app answers with want.
func says(ctx context.Context, browser *http.Client, want string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://shop.emerald.localhost/", nil)
	if err != nil {
		return err
	}
	resp, err := browser.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err == nil && string(got) != want {
		err = fmt.Errorf("%s: %q, want %q", resp.Status, got, want)
	}
	return err
}

// waitFor returns once the machine's own commands work.
func waitFor(m *fixture.Machine, what string) {
	m.Eventually(what, 3*time.Minute, func(context.Context) error {
		_, _, err := m.Try("status")
		return err
	})
}
