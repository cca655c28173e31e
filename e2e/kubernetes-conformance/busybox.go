package main

import (
	"bytes"
	"compress/bzip2"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Upstream's source of the busybox that the suite's image is made of, as Debian
// mirrors it. Debian's own program will not do: it is patched to drop variables
// whose names its shell could not set, and tests look for those.
const (
	busyboxVersion = "1.37.0"
	busyboxSource  = "/pool/main/b/busybox/busybox_" + busyboxVersion + ".orig.tar.bz2"
	busyboxSum     = "3311dff32e746499f4df0d5df04d7eb396382d7e108bb9250e7b519b837043a4"
)

// busybox is a program that is many.
type busybox struct {
	path    string
	applets []string // the others' names
}

// makeBusybox builds busybox in dir, unless an earlier run did.
func makeBusybox(ctx context.Context, dir, mirror string) (*busybox, error) {
	b := &busybox{path: filepath.Join(dir, "busybox")}
	if _, err := os.Stat(b.path); errors.Is(err, fs.ErrNotExist) {
		if err := b.build(ctx, filepath.Join(dir, "busybox-"+busyboxVersion), mirror+busyboxSource); err != nil {
			return nil, fmt.Errorf("build busybox: %w", err)
		}
	} else if err != nil {
		return nil, fmt.Errorf("look for %s: %w", b.path, err)
	}
	applets, err := exec.CommandContext(ctx, b.path, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("ask busybox what it can be: %w", err)
	}
	b.applets = slices.DeleteFunc(strings.Fields(string(applets)), func(a string) bool { return a == "busybox" })
	return b, nil
}

// build unpacks the source at url in tree and makes b.path of it.
func (b *busybox) build(ctx context.Context, tree, url string) error {
	source, err := download(ctx, url, busyboxSum)
	if err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(tree), os.MkdirAll(tree, 0o755)); err != nil {
		return err
	}
	unpack := exec.CommandContext(ctx, "tar", "-x", "--strip-components=1", "-C", tree)
	unpack.Stdin = bzip2.NewReader(bytes.NewReader(source))
	if err := quietly(unpack); err != nil {
		return err
	}
	if err := quietly(exec.CommandContext(ctx, "make", "-C", tree, "defconfig")); err != nil {
		return err
	}
	config, err := os.ReadFile(filepath.Join(tree, ".config"))
	if err != nil {
		return err
	}
	set := strings.NewReplacer(
		"# CONFIG_STATIC is not set", "CONFIG_STATIC=y",
		// It takes a scheduler that new kernels' headers no longer have.
		"CONFIG_TC=y", "# CONFIG_TC is not set")
	if err := os.WriteFile(filepath.Join(tree, ".config"), []byte(set.Replace(string(config))), 0o644); err != nil {
		return err
	}
	if err := quietly(exec.CommandContext(ctx, "make", "-C", tree, fmt.Sprintf("-j%d", runtime.NumCPU()), "busybox")); err != nil {
		return err
	}
	return errors.Join(os.Rename(filepath.Join(tree, "busybox"), b.path), os.RemoveAll(tree))
}

// quietly runs a command whose output is of interest only when it fails.
func quietly(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}

// download returns what is at url, whose SHA-256 is known.
func download(ctx context.Context, url, sum string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("download %s: %s", url, resp.Status)
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("download %s: %w", url, err)
	}
	if got := sha256.Sum256(raw); hex.EncodeToString(got[:]) != sum {
		return nil, fmt.Errorf("download %s: its SHA-256 is %x, want %s", url, got, sum)
	}
	return raw, nil
}
