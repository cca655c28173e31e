package install

import (
	"time"

	"k8s.io/apimachinery/pkg/util/resourceversion"
)

// version is the state of an object as the cluster counts it.
type version struct {
	generation int64
	resource   string
}

// after tells whether v is younger than o. Resource versions grow, by KEP-5504.
func (v version) after(o version) bool {
	order, err := resourceversion.CompareResourceVersion(v.resource, o.resource)
	if err != nil {
		return v.resource != o.resource // a server that does not count
	}
	return order > 0
}

// touch is a change of an object that somebody made, perhaps we.
type touch struct {
	ref     ref
	version version
	deleted bool
}

// invalidate forgets what was applied when the plan is another, somebody
// changed an object, or it was long ago. It returns how long to wait when
// objects are changed again and again.
func (w *worker) invalidate(p *plan) time.Duration {
	if w.plan != p {
		w.plan, w.basics, w.whole, w.digest = p, false, false, ""
		return 0
	}
	if changed := w.drift(); len(changed) > 0 {
		if w.whole {
			w.in.log.Info("repair", "battery", w.name, "object", changed[0].String(), "objects", len(changed))
		}
		w.basics, w.whole = false, false
		w.notBefore = time.Now().Add(w.repairs.Reserve().Delay())
	}
	if w.whole && time.Since(w.wholeAt) >= resync {
		w.basics, w.whole = false, false
	}
	return time.Until(w.notBefore)
}

// drift returns the objects that differ from what was applied last.
func (w *worker) drift() []ref {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []ref
	for _, t := range w.touched {
		last, ours := w.seen[t.ref]
		switch {
		case !ours || !t.version.after(last):
			// Not applied by us, or what we applied, or what came before.
		case t.deleted || t.version.generation == 0 || t.version.generation != last.generation:
			out = append(out, t.ref)
		default:
			// The status changed, which is not ours.
		}
	}
	w.touched = nil
	return out
}

// touch records what a watch has shown.
func (w *worker) touch(t touch) {
	w.mu.Lock()
	w.touched = append(w.touched, t)
	w.mu.Unlock()
	w.wakeUp()
}
