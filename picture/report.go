package picture

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"

	"github.com/emerald-platform/emerald/battery"
)

// Report is what was last proven of each proof on a cluster.
type Report struct {
	Results []Result `json:"results"`
}

// Merge returns the report with newer results in the place of older ones of the
// same proof.
func (r Report) Merge(newer []Result) Report {
	out := Report{Results: slices.Clone(r.Results)}
	for _, n := range newer {
		if i := slices.IndexFunc(out.Results, n.is); i >= 0 {
			out.Results[i] = n
		} else {
			out.Results = append(out.Results, n)
		}
	}
	return out
}

// Failures returns how many results of the report are failures.
func Failures(results []Result) int {
	n := 0
	for _, r := range results {
		if !r.Passed {
			n++
		}
	}
	return n
}

// The ConfigMap in emerald-system that keeps the report.
const (
	reportName = "verify"
	reportKey  = "report.json"
)

// Load returns the report kept on the cluster, empty when none is.
func Load(ctx context.Context, client kubernetes.Interface) (Report, error) {
	cm, err := client.CoreV1().ConfigMaps(battery.SystemNamespace).Get(ctx, reportName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return Report{}, nil
	}
	if err != nil {
		return Report{}, fmt.Errorf("read what was proven: %w", err)
	}
	return decode(cm), nil
}

// decode reads a report; one that was damaged proves nothing.
func decode(cm *corev1.ConfigMap) Report {
	var r Report
	if err := json.Unmarshal([]byte(cm.Data[reportKey]), &r); err != nil {
		return Report{}
	}
	return r
}

// Save merges results into the report kept on the cluster. Results of proofs
// that no longer exist in all are dropped.
func Save(ctx context.Context, client kubernetes.Interface, all []battery.Battery, results []Result) error {
	maps := client.CoreV1().ConfigMaps(battery.SystemNamespace)
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		cm, err := maps.Get(ctx, reportName, metav1.GetOptions{})
		missing := apierrors.IsNotFound(err)
		if missing {
			cm = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: reportName}}
		} else if err != nil {
			return err
		}
		report := decode(cm).Merge(results)
		report.Results = slices.DeleteFunc(report.Results, func(r Result) bool { return !exists(all, r) })
		raw, err := json.Marshal(report)
		if err != nil {
			return err
		}
		cm.Data = map[string]string{reportKey: string(raw)}
		if missing {
			_, err = maps.Create(ctx, cm, metav1.CreateOptions{FieldManager: battery.Owner})
		} else {
			_, err = maps.Update(ctx, cm, metav1.UpdateOptions{FieldManager: battery.Owner})
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("keep what was proven: %w", err)
	}
	return nil
}

func exists(all []battery.Battery, r Result) bool {
	return slices.ContainsFunc(all, func(b battery.Battery) bool {
		return b.Name == r.Battery && slices.ContainsFunc(b.Proofs, func(p battery.Proof) bool {
			return p.Claim == r.Claim && p.Feature == r.Feature
		})
	})
}
