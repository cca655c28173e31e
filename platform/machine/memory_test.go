package machine

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

func TestCalm(t *testing.T) {
	const work, idle = calmRate, calmRate - 1
	tests := []struct {
		reason string
		grown  []int64 // bytes, per round
		want   []change
	}{
		{"a process that works never rests", []int64{work, work, work, work}, []change{0, 0, 0, 0}},
		{"rest is told once", []int64{idle, idle, idle, idle}, []change{0, 0, cameToRest, 0}},
		{"one busy round starts the count again", []int64{idle, idle, work, idle, idle, idle}, []change{0, 0, 0, 0, 0, cameToRest}},
		{"work after rest is told once", []int64{idle, idle, idle, work, work, idle}, []change{0, 0, cameToRest, wentToWork, 0, 0}},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			c, total := calm{last: 7}, int64(7)
			for i, grown := range tt.grown {
				total += grown
				if got := c.next(total); got != tt.want[i] {
					t.Errorf("round %d: got %v, want %v", i, got, tt.want[i])
				}
			}
		})
	}
}

func TestUntilStarted(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	never, over := make(chan struct{}), make(chan struct{})
	close(over)
	untilStarted(ctx, over, func() uint64 { return 0 })
	size := uint64(startHeap - 2)
	untilStarted(ctx, never, func() uint64 { size++; return size })
	if ctx.Err() != nil || size != startHeap {
		t.Errorf("the start ended with %d bytes on the heap (%v), want %d", size, ctx.Err(), uint64(startHeap))
	}
	cancel()
	untilStarted(ctx, never, func() uint64 { return 0 })
}

func TestProgramMapping(t *testing.T) {
	const path = "/opt/my emerald"
	tests := []struct {
		line       string
		start, end uintptr
		ok         bool
	}{
		{"00400000-0652e000 r-xp 00000000 fe:00 10757424                           " + path, 0x400000, 0x652e000, true},
		{"0652e000-0e9ef000 r--p 0612e000 fe:00 10757424                           " + path, 0x652e000, 0xe9ef000, true},
		{"0e9ef000-0ec14000 rw-p 0e5ef000 fe:00 10757424                           " + path, 0, 0, false},
		{"7f88b2055000-7f88b4b0a000 rw-p 00000000 00:00 0 ", 0, 0, false},
		{"7f88b2055000-7f88b4b0a000 r--s 00000000 fe:00 1139113                    /var/lib/db", 0, 0, false},
		{"", 0, 0, false},
	}
	for _, tt := range tests {
		start, end, ok := programMapping(tt.line, path)
		if ok != tt.ok || ok && (start != tt.start || end != tt.end) {
			t.Errorf("programMapping(%q) = %x, %x, %v", tt.line, start, end, ok)
		}
	}
}

func TestReleaseProgram(t *testing.T) {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for line := range strings.Lines(string(maps)) {
		if _, _, ok := programMapping(strings.TrimSpace(line), self); ok {
			found++
		}
	}
	if found < 2 {
		t.Errorf("found %d read-only mappings of %s, want code and constants in\n%s", found, self, maps)
	}
	if err := releaseProgram(); err != nil {
		t.Error(err)
	}
}
