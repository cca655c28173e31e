// Package poll asks again and again until something is so. It promises that the
// end of its time is never mistaken for an answer: a question that is cut off
// then does not count.
package poll

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// Until calls check at once, and then every so often, until it returns true or an
// error, for as long as limit and ctx say. When they end first it returns the
// error of the context, whatever the check under way says about it: what was
// wrong before is the caller's to remember, with [Over].
func Until(ctx context.Context, every, limit time.Duration, check wait.ConditionWithContextFunc) error {
	return wait.PollUntilContextTimeout(ctx, every, limit, true, func(ctx context.Context) (bool, error) {
		done, err := check(ctx)
		if err != nil && Over(ctx) {
			return false, nil // ends with the context's error
		}
		return done, err
	})
}

// Over tells whether the time of a context is up. A dialer ends by its deadline,
// and may say so before the context itself does.
func Over(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(deadline)
}
