package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"golang.org/x/sys/unix"

	"github.com/emerald-platform/emerald/kit/durable"
)

// disk is the distribution project's file system driver, made durable. That
// driver syncs files but not the directories it makes and moves files into, so
// that a power loss can take back a push that was acknowledged.
//
// Uploads in progress are the exception: nobody was promised that they survive
// a power loss, and they are what most writes are about.
type disk struct {
	storagedriver.StorageDriver
	root string

	// synced holds the directories whose way up to the root is known to be on
	// the disk. Removing anything forgets them all: a directory may come back
	// under its old name.
	mu     sync.Mutex
	synced map[string]struct{}
	epoch  int
}

// maxSynced bounds the memory of what is known to be on the disk.
const maxSynced = 1 << 16

func openDisk(root string) (*disk, error) {
	d := &disk{
		StorageDriver: filesystem.New(filesystem.DriverParameters{RootDirectory: root, MaxThreads: 100}),
		root:          root,
		synced:        map[string]struct{}{},
	}
	// What was being removed when the process was killed.
	if err := os.RemoveAll(d.trash()); err != nil {
		return nil, fmt.Errorf("empty the trash: %w", err)
	}
	if err := os.MkdirAll(d.trash(), 0o700); err != nil {
		return nil, fmt.Errorf("make the trash: %w", err)
	}
	return d, nil
}

func (d *disk) trash() string { return filepath.Join(d.root, ".trash") }

func (d *disk) full(path string) string { return filepath.Join(d.root, path) }

// transient tells whether a path belongs to an upload in progress.
func transient(path string) bool { return strings.Contains(path, "/_uploads/") }

// PutContent replaces a small file, and returns once it would survive a power
// loss.
func (d *disk) PutContent(_ context.Context, path string, content []byte) error {
	if !storagedriver.PathRegexp.MatchString(path) {
		return storagedriver.InvalidPathError{Path: path, DriverName: d.Name()}
	}
	full := d.full(path)
	if err := os.MkdirAll(filepath.Dir(full), 0o700); err != nil {
		return err
	}
	if transient(path) {
		return d.replace(full, content)
	}
	if err := durable.WriteFile(full, content, 0o600); err != nil {
		return err
	}
	return d.settle(filepath.Dir(full), true)
}

// replace replaces a file at once, and leaves it to the kernel when to write it.
func (d *disk) replace(full string, content []byte) error {
	f, err := os.CreateTemp(d.trash(), "")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), full)
	}
	if err != nil {
		os.Remove(f.Name()) // what is left goes when the process starts again
	}
	return err
}

// Move renames a file, which its writer has synced, and returns once that would
// survive a power loss.
func (d *disk) Move(ctx context.Context, from, to string) error {
	if err := d.StorageDriver.Move(ctx, from, to); err != nil {
		return err
	}
	return d.settle(filepath.Dir(d.full(to)), false)
}

// Delete removes a file or a whole directory at once: whoever looks finds all of
// it or nothing, even after kill -9.
func (d *disk) Delete(_ context.Context, path string) error {
	if !storagedriver.PathRegexp.MatchString(path) {
		return storagedriver.InvalidPathError{Path: path, DriverName: d.Name()}
	}
	full := d.full(path)
	grave, err := os.MkdirTemp(d.trash(), "")
	if err != nil {
		return err
	}
	defer os.RemoveAll(grave) // what is left goes when the process starts again
	err = os.Rename(full, filepath.Join(grave, "gone"))
	if os.IsNotExist(err) {
		return storagedriver.PathNotFoundError{Path: path, DriverName: d.Name()}
	}
	if err != nil {
		return err
	}
	if transient(path) {
		return nil
	}
	d.mu.Lock()
	clear(d.synced)
	d.epoch++
	d.mu.Unlock()
	return syncDir(filepath.Dir(full))
}

// settle puts a directory's entries on the disk, unless that was done already,
// and its own entry in its parent, and so on up to the root.
func (d *disk) settle(dir string, done bool) error {
	d.mu.Lock()
	epoch := d.epoch
	d.mu.Unlock()
	var settled []string
	for ; ; dir = filepath.Dir(dir) {
		if !done {
			if err := syncDir(dir); err != nil {
				return err
			}
		}
		done = false
		settled = append(settled, dir)
		if dir == d.root || d.knows(dir) {
			break
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if epoch != d.epoch {
		return nil
	}
	if len(d.synced) > maxSynced {
		clear(d.synced)
	}
	for _, dir := range settled {
		d.synced[dir] = struct{}{}
	}
	return nil
}

func (d *disk) knows(dir string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.synced[dir]
	return ok
}

// syncDir puts the entries of a directory on the disk. A directory that was
// removed meanwhile has none.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Fsync(int(f.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
