package host

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/emerald-platform/emerald/battery"
)

// reportAgain is the pause after a report that the API server did not take.
const reportAgain = 500 * time.Millisecond

// reports writes conditions on the pod this process runs in: one for each
// battery, true while it does its job here. The installer reads them.
type reports struct {
	client kubernetes.Interface
	pod    string
	log    *slog.Logger

	changed chan struct{}
	mu      sync.Mutex
	state   map[string]bool // by battery
	unsaid  map[string]bool // what the pod does not say yet
}

// newReports begins with every battery not ready: a pod whose container died
// still says what was true before.
func newReports(client kubernetes.Interface, pod string, names []string, log *slog.Logger) *reports {
	r := &reports{
		client: client, pod: pod, log: log,
		changed: make(chan struct{}, 1), state: map[string]bool{}, unsaid: map[string]bool{},
	}
	for _, n := range names {
		r.set(n, false)
	}
	return r
}

func (r *reports) ready(name string) { r.set(name, true) }

func (r *reports) set(name string, ready bool) {
	r.mu.Lock()
	r.state[name], r.unsaid[name] = ready, true
	r.mu.Unlock()
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// run writes what changes until ctx ends.
func (r *reports) run(ctx context.Context) {
	for {
		var again <-chan time.Time
		if err := r.write(ctx); err != nil && ctx.Err() == nil {
			r.log.Warn("report which batteries are ready", "error", err)
			again = time.After(reportAgain)
		}
		select {
		case <-ctx.Done():
			return
		case <-r.changed:
		case <-again:
		}
	}
}

// write says what was not said yet.
func (r *reports) write(ctx context.Context) error {
	r.mu.Lock()
	said := map[string]bool{}
	var conditions []corev1.PodCondition
	for name := range r.unsaid {
		said[name] = r.state[name]
		c := corev1.PodCondition{
			Type: corev1.PodConditionType(battery.ConditionOf(name)), Status: corev1.ConditionFalse,
			Reason: "Starting", LastTransitionTime: metav1.Now(),
		}
		if r.state[name] {
			c.Status, c.Reason = corev1.ConditionTrue, "Ready"
		}
		conditions = append(conditions, c)
	}
	r.mu.Unlock()
	if len(conditions) == 0 {
		return nil
	}
	raw, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": conditions}})
	if err != nil {
		return err
	}
	_, err = r.client.CoreV1().Pods(battery.SystemNamespace).Patch(ctx, r.pod, types.StrategicMergePatchType, raw, metav1.PatchOptions{}, "status")
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, ready := range said {
		if r.state[name] == ready {
			delete(r.unsaid, name)
		}
	}
	return nil
}
