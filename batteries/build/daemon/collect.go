package daemon

import (
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/cmd/buildkitd/config"
	"github.com/moby/buildkit/util/disk"
)

// collectPolicy says what BuildKit throws away, in order, when its state takes
// more than size bytes or the disk has less than free. Unlike BuildKit's own
// policy it keeps cache mounts as long as layers: a warm Go or npm cache is
// what makes the next build quick.
func collectPolicy(size, free int64, root string) []client.PruneInfo {
	if size == 0 {
		// A disk that cannot be measured gets BuildKit's fixed default.
		stat, _ := disk.GetDiskStat(root)
		size = config.DetectDefaultGCCap(stat).GCMaxUsedSpace.AsBytes(stat)
	}
	return []client.PruneInfo{
		{Filter: []string{"type==source.local", "type==source.git.checkout"}, KeepDuration: 7 * 24 * time.Hour, MaxUsedSpace: size / 10},
		{KeepDuration: 60 * 24 * time.Hour, MaxUsedSpace: size, MinFreeSpace: free},
		{MaxUsedSpace: size, MinFreeSpace: free},
		{All: true, MaxUsedSpace: size, MinFreeSpace: free},
	}
}
