package apps

import (
	"context"

	"github.com/emerald-platform/emerald/battery"
)

func checkURL(ctx context.Context, s battery.Site) error    { return nil }
func checkUpdate(ctx context.Context, s battery.Site) error { return nil }
