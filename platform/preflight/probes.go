package preflight

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// probes are the eyes of the checks; tests give them others.
type probes struct {
	user        func() int
	exists      func(path string) bool
	read        func(path string) (string, error)
	writable    func(path string) bool
	nftVersion  func() (string, error)
	overlay     func(dir string) error
	network     func(context.Context) []lacking
	controllers func() (names []string, unified bool, err error)
	portTaken   func(Port) (holder, bool)
	disk        func(path string) (disk, error)
	memory      func() (uint64, error)
	openFiles   func() (uint64, error)
	now         func() time.Time
	newest      func(dir string) (time.Time, bool)
}

// lacking is something that the kernel can't do.
type lacking struct {
	name, module string
	err          error
}

// holder is the process that listens on a port; pid is 0 when unknown.
type holder struct {
	pid        int
	name, unit string
}

// disk is the file system that a directory is or would be on.
type disk struct {
	mount               string
	bytes               uint64
	inodes, inodesTotal uint64
	readOnly, noExec    bool
}

func hostProbes() probes {
	return probes{
		user:        os.Geteuid,
		exists:      func(path string) bool { _, err := os.Lstat(path); return err == nil },
		read:        func(path string) (string, error) { data, err := os.ReadFile(path); return string(data), err },
		writable:    func(path string) bool { return unix.Access(path, unix.W_OK) == nil },
		nftVersion:  nftVersion,
		overlay:     tryOverlay,
		network:     tryNetwork,
		controllers: cgroupControllers,
		portTaken:   portTaken,
		disk:        diskOf,
		memory:      totalMemory,
		openFiles:   openFiles,
		now:         time.Now,
		newest:      newestFile,
	}
}

// nftPath looks also where not every root's shell does.
func nftPath() (string, error) {
	path, err := exec.LookPath("nft")
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/nft")
	}
	return path, err
}

func nftVersion() (string, error) {
	path, err := nftPath()
	if err != nil {
		return "", err
	}
	out, err := exec.Command(path, "--version").Output()
	if err != nil {
		return "", err
	}
	// nftables v1.0.6 (Lester Gooch #5)
	if f := strings.Fields(string(out)); len(f) > 1 {
		return f[1], nil
	}
	return "", fmt.Errorf("read the version of nft from %q", out)
}

// tryOverlay mounts and unmounts an overlay where the containers' will be.
func tryOverlay(dir string) error {
	parent := existing(dir)
	root, err := os.MkdirTemp(parent, ".emerald-preflight-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o700); err != nil {
			return err
		}
	}
	merged := filepath.Join(root, "merged")
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", root)
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		return err
	}
	defer func() { _ = unix.Unmount(merged, unix.MNT_DETACH) }()
	return os.WriteFile(filepath.Join(merged, "file"), nil, 0o600)
}

// existing returns the nearest directory on the way to path that exists.
func existing(path string) string {
	for {
		if st, err := os.Stat(path); err == nil && st.IsDir() {
			return path
		}
		if path == "/" || path == "." {
			return "/"
		}
		path = filepath.Dir(path)
	}
}

// cgroupControllers lists what is mounted.
func cgroupControllers() ([]string, bool, error) {
	if data, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return strings.Fields(string(data)), true, nil
	}
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, false, err
	}
	var names []string
	for line := range strings.Lines(string(data)) {
		_, right, _ := strings.Cut(line, " - ")
		f := strings.Fields(right)
		if len(f) < 3 || f[0] != "cgroup" {
			continue
		}
		names = append(names, strings.Split(f[2], ",")...)
	}
	if len(names) == 0 {
		return nil, false, errors.New("nothing is mounted")
	}
	return names, false, nil
}

// portTaken tries to listen. A listening socket is the only thing that another
// can't share; connections in the making of an earlier listener don't count.
func portTaken(p Port) (holder, bool) {
	address := net.JoinHostPort(p.Address, strconv.Itoa(int(p.Number)))
	var err error
	if p.Network == "udp" {
		var c net.PacketConn
		if c, err = net.ListenPacket("udp", address); err == nil {
			c.Close()
		}
	} else {
		var l net.Listener
		if l, err = net.Listen("tcp", address); err == nil {
			l.Close()
		}
	}
	if !errors.Is(err, unix.EADDRINUSE) {
		return holder{}, false
	}
	return listenerOf(p), true
}

// listenerOf finds the process that listens on a port, by the socket's inode.
func listenerOf(p Port) holder {
	var inodes []string
	for _, suffix := range []string{"", "6"} {
		data, err := os.ReadFile("/proc/net/" + p.Network + suffix)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			// sl local_address rem_address st … inode, numbers in hex
			f := strings.Fields(line)
			if len(f) < 10 || (p.Network == "tcp" && f[3] != "0A") {
				continue
			}
			_, port, _ := strings.Cut(f[1], ":")
			if n, err := strconv.ParseUint(port, 16, 16); err == nil && uint16(n) == p.Number {
				inodes = append(inodes, "socket:["+f[9]+"]")
			}
		}
	}
	if len(inodes) == 0 {
		return holder{}
	}
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return holder{}
	}
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil || !slices.Contains(inodes, target) {
			continue
		}
		proc := filepath.Dir(filepath.Dir(link))
		pid, err := strconv.Atoi(filepath.Base(proc))
		if err != nil {
			continue
		}
		name, _ := os.ReadFile(proc + "/comm")
		return holder{pid: pid, name: strings.TrimSpace(string(name)), unit: unitOf(proc)}
	}
	return holder{}
}

// unitOf returns the systemd service that a process belongs to, "" for none.
func unitOf(proc string) string {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return ""
	}
	data, err := os.ReadFile(proc + "/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		for _, part := range strings.Split(strings.TrimSpace(line), "/") {
			if strings.HasSuffix(part, ".service") && !strings.HasPrefix(part, "user@") {
				return part
			}
		}
	}
	return ""
}

func diskOf(path string) (disk, error) {
	at := existing(path)
	var st unix.Statfs_t
	if err := unix.Statfs(at, &st); err != nil {
		return disk{}, err
	}
	return disk{
		mount:       mountOf(at),
		bytes:       st.Bavail * uint64(st.Bsize),
		inodes:      st.Ffree,
		inodesTotal: st.Files,
		readOnly:    st.Flags&unix.ST_RDONLY != 0,
		noExec:      st.Flags&unix.ST_NOEXEC != 0,
	}, nil
}

// mountOf returns the mount point that a directory is below.
func mountOf(dir string) string {
	var want unix.Stat_t
	if unix.Stat(dir, &want) != nil {
		return dir
	}
	for dir != "/" {
		var parent unix.Stat_t
		if unix.Stat(filepath.Dir(dir), &parent) != nil || parent.Dev != want.Dev {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	return dir
}

func totalMemory() (uint64, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, err
	}
	return uint64(info.Totalram) * uint64(info.Unit), nil
}

func openFiles() (uint64, error) {
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	return limit.Max, err
}

// newestFile returns when something in dir or right below it was last written.
// Deeper there are files of pods, whose times pods may set as they like.
func newestFile(dir string) (time.Time, bool) {
	var newest time.Time
	for _, pattern := range []string{dir, dir + "/*", dir + "/etcd/member/*/*"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			continue
		}
		for _, p := range paths {
			st, err := os.Lstat(p)
			if err == nil && st.Mode().Type()&fs.ModeSymlink == 0 && st.ModTime().After(newest) {
				newest = st.ModTime()
			}
		}
	}
	return newest, !newest.IsZero()
}
