package machine

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Version is the platform's version, stamped by the build.
var Version = "0.1.0-dev"

// Committed is when the program's source was committed (RFC 3339), stamped by
// the build; empty where it was built without git.
var Committed string

// binaryID tells one build of the program from another without reading it:
// the inode, size and time of its file.
func binaryID() string {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return ""
	}
	return BinaryID(self)
}

// BinaryID returns what [State].Binary says for a machine that runs the
// program at path.
func BinaryID(path string) string {
	var st unix.Stat_t
	if err := unix.Stat(filepath.Clean(path), &st); err != nil {
		return ""
	}
	return fmt.Sprintf("%x-%x-%x.%x", st.Ino, st.Size, st.Mtim.Sec, st.Mtim.Nsec)
}
