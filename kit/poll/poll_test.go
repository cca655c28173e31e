package poll

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestUntil(t *testing.T) {
	broken := errors.New("it is broken")
	for name, c := range map[string]struct {
		check func(context.Context) (bool, error)
		want  error
	}{
		"it is so":         {func(context.Context) (bool, error) { return true, nil }, nil},
		"it never is":      {func(context.Context) (bool, error) { return false, nil }, context.DeadlineExceeded},
		"it is broken":     {func(context.Context) (bool, error) { return false, broken }, broken},
		"the end cuts off": {func(ctx context.Context) (bool, error) { <-ctx.Done(); return false, broken }, context.DeadlineExceeded},
		"a dialer notices first": {func(ctx context.Context) (bool, error) {
			deadline, _ := ctx.Deadline()
			<-time.After(time.Until(deadline))
			return false, broken
		}, context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			if err := Until(t.Context(), time.Millisecond, 50*time.Millisecond, c.check); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestUntilTheCallerEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	err := Until(ctx, time.Millisecond, time.Minute, func(ctx context.Context) (bool, error) {
		cancel()
		<-ctx.Done()
		return false, errors.New("cut off")
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
