package gateway

import "github.com/emerald-platform/emerald/battery"

var proofs = []battery.Proof{}
