package control

import (
	"context"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/emerald-platform/emerald/batteries/gateway/internal/model"
	"github.com/emerald-platform/emerald/batteries/gateway/internal/upstream"
)

// recorder is a data plane that remembers what it was told.
type recorder struct{ cleared []upstream.Service }

func (r *recorder) Apply(*model.Config) error { return nil }

func (r *recorder) SetEndpoints(s upstream.Service, addresses []string) {
	if addresses == nil {
		r.cleared = append(r.cleared, s)
	}
}

// A backend keeps its endpoints until the configuration that used it is gone.
func TestFollowForgetsLate(t *testing.T) {
	data := &recorder{}
	gone := upstream.Service{Namespace: "ns", Name: "old", Port: 80}
	c := &Controller{Options: Options{Data: data}, wanted: map[types.NamespacedName][]int32{{Namespace: "ns", Name: "old"}: {80}}}
	forget := c.follow(context.Background(), nil)
	if len(data.cleared) > 0 {
		t.Fatalf("forgot %v before the configuration changed", data.cleared)
	}
	forget()
	if !slices.Equal(data.cleared, []upstream.Service{gone}) {
		t.Errorf("forgot %v, want %v", data.cleared, gone)
	}
}
