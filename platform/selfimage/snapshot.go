package selfimage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// snapshotter is the one the runtime is configured with.
const snapshotter = "overlayfs"

// unpack makes the snapshot called name out of the image's files, without the
// detour over an archive in the content store: a program on the same file
// system is linked, not copied, and then shares its memory with every pod.
func (i image) unpack(ctx context.Context, s snapshots.Snapshotter, name string) error {
	if _, err := s.Stat(ctx, name); err == nil {
		return nil
	}
	key := "emerald-unpack-" + name
	// Left over from a process that was killed here.
	if err := s.Remove(ctx, key); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("clear snapshot of image %s: %w", i.repository, err)
	}
	mounts, err := s.Prepare(ctx, key, "")
	if err != nil {
		return fmt.Errorf("prepare snapshot of image %s: %w", i.repository, err)
	}
	root, err := bindSource(mounts)
	if err == nil {
		err = i.write(root)
	}
	if err == nil {
		err = s.Commit(ctx, name, key)
		if errdefs.IsAlreadyExists(err) {
			return s.Remove(ctx, key)
		}
	}
	if err != nil {
		return errors.Join(fmt.Errorf("unpack image %s: %w", i.repository, err), s.Remove(ctx, key))
	}
	return nil
}

// intact reports whether the snapshot still holds the image's files: after a
// power loss, the kernel may have lost what a database on the same disk kept.
func (i image) intact(ctx context.Context, s snapshots.Snapshotter, name string) (bool, error) {
	if _, err := s.Stat(ctx, name); errdefs.IsNotFound(err) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("look for snapshot of image %s: %w", i.repository, err)
	}
	key := "emerald-view-" + name
	if err := s.Remove(ctx, key); err != nil && !errdefs.IsNotFound(err) {
		return false, fmt.Errorf("look into snapshot of image %s: %w", i.repository, err)
	}
	mounts, err := s.View(ctx, key, name)
	if err != nil {
		return false, fmt.Errorf("look into snapshot of image %s: %w", i.repository, err)
	}
	root, err := bindSource(mounts)
	ok := err == nil
	for _, f := range i.files {
		ok = ok && f.isAt(filepath.Join(root, f.path))
	}
	// The runtime's garbage collector may have been faster.
	if err := s.Remove(ctx, key); err != nil && !errdefs.IsNotFound(err) {
		return false, fmt.Errorf("look into snapshot of image %s: %w", i.repository, err)
	}
	return ok, nil
}

// isAt reports whether path holds the file: by its size, which a file that a
// power loss cut short does not have, and its mode.
func (f file) isAt(path string) bool {
	st, err := os.Stat(path)
	if err != nil {
		return false
	}
	if f.from == "" {
		return st.Size() == int64(len(f.data))
	}
	want, err := os.Stat(f.from)
	return err == nil && st.Size() == want.Size()
}

// bindSource returns the directory behind a snapshot without parents, which
// overlayfs mounts as it is.
func bindSource(mounts []mount.Mount) (string, error) {
	if len(mounts) != 1 || mounts[0].Type != "bind" {
		return "", fmt.Errorf("snapshot is not a plain directory: %v", mounts)
	}
	return mounts[0].Source, nil
}

// write puts the image's files below root.
func (i image) write(root string) error {
	for _, d := range i.directories() {
		path := filepath.Join(root, d.path)
		if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		// Mkdir's mode is subject to the umask.
		if err := os.Chmod(path, d.mode); err != nil {
			return err
		}
	}
	for _, f := range i.files {
		if err := f.write(filepath.Join(root, f.path)); err != nil {
			return err
		}
	}
	return syncTree(root)
}

func (f file) write(path string) error {
	if f.from != "" && f.link(path) {
		return nil
	}
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, f.mode)
	if err != nil {
		return err
	}
	defer out.Close()
	if f.from == "" {
		_, err = out.Write(f.data)
	} else {
		err = copyFile(out, f.from)
	}
	if err == nil {
		err = out.Chmod(f.mode)
	}
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

// link makes path another name of the file, when the file is as the image wants
// it and on the same file system.
func (f file) link(path string) bool {
	st, err := os.Stat(f.from)
	if err != nil || st.Mode().Perm() != f.mode.Perm() {
		return false
	}
	from := f.from
	if target, err := os.Readlink(from); err == nil {
		// /proc/self/exe of a program whose file was replaced can't be linked.
		if strings.HasSuffix(target, " (deleted)") {
			return false
		}
	}
	return unix.Linkat(unix.AT_FDCWD, from, unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW) == nil
}

func copyFile(out *os.File, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	// The kernel copies, or shares the blocks where the file system can.
	_, err = io.Copy(out, in)
	return err
}

// syncTree makes the directories durable.
func syncTree(root string) error {
	return filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		dir, err := os.Open(path)
		if err != nil {
			return err
		}
		defer dir.Close()
		return dir.Sync()
	})
}
