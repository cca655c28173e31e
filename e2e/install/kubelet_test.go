package install_test

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/emerald-platform/emerald/battery"
)

// machine stands in for the kubelets of any number of machines: every pod that
// the scheduler gives one runs at once, and is ready unless it is held back.
type machine struct {
	client kubernetes.Interface

	mu    sync.Mutex
	held  map[string]bool // names of batteries whose pods do not get ready
	hosts bool            // real processes report for the shared controllers
	pods  cache.SharedIndexInformer
}

func newMachine(ctx context.Context, t *testing.T, client kubernetes.Interface) *machine {
	m := &machine{client: client, held: map[string]bool{}}
	factory := informers.NewSharedInformerFactory(client, 0)
	m.pods = factory.Core().V1().Pods().Informer()
	if _, err := m.pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { m.sync(ctx, t, o.(*corev1.Pod)) },
		UpdateFunc: func(_, o any) { m.sync(ctx, t, o.(*corev1.Pod)) },
	}); err != nil {
		t.Fatal(err)
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	return m
}

// join adds a machine.
func (m *machine) join(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}
	if _, err := m.client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	room := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("8"), corev1.ResourceMemory: resource.MustParse("16Gi"), corev1.ResourcePods: resource.MustParse("100"),
	}
	raw, err := json.Marshal(map[string]any{"status": corev1.NodeStatus{
		Capacity: room, Allocatable: room,
		Conditions: []corev1.NodeCondition{{
			Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now(),
		}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.client.CoreV1().Nodes().PatchStatus(ctx, name, raw); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) leave(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	if err := m.client.CoreV1().Nodes().Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// hold keeps the pods of a battery from being ready, release lets them.
func (m *machine) hold(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held[name] = true
}

func (m *machine) release(ctx context.Context, t *testing.T, name string) {
	m.mu.Lock()
	delete(m.held, name)
	m.mu.Unlock()
	for _, o := range m.pods.GetStore().List() {
		m.sync(ctx, t, o.(*corev1.Pod))
	}
}

// real says whether real processes report for the shared controllers.
func (m *machine) real(yes bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hosts = yes
}

func (m *machine) hosted() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.hosts
}

func (m *machine) isHeld(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.held[name]
}

// sync reports of a pod what a kubelet would, and of a pod of the shared
// controllers what their process would.
func (m *machine) sync(ctx context.Context, t *testing.T, p *corev1.Pod) {
	if p.Spec.NodeName == "" || ctx.Err() != nil {
		return
	}
	if p.DeletionTimestamp != nil {
		now := int64(0)
		_ = m.client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &now})
		return
	}
	conditions := map[string]bool{
		string(corev1.PodReady): !m.isHeld(p.Labels[battery.LabelBattery]), string(corev1.ContainersReady): true,
	}
	if p.Labels[battery.LabelBattery] == battery.SystemBattery && !m.hosted() {
		for _, b := range first() {
			if b.Where == battery.Controllers {
				conditions[battery.ConditionOf(b.Name)] = !m.isHeld(b.Name)
			}
		}
	}
	for _, c := range p.Status.Conditions {
		if want, ok := conditions[string(c.Type)]; ok && want == (c.Status == corev1.ConditionTrue) {
			delete(conditions, string(c.Type))
		}
	}
	if len(conditions) == 0 {
		return
	}
	status := corev1.PodStatus{Phase: corev1.PodRunning}
	for _, name := range slices.Sorted(maps.Keys(conditions)) {
		value := corev1.ConditionFalse
		if conditions[name] {
			value = corev1.ConditionTrue
		}
		status.Conditions = append(status.Conditions, corev1.PodCondition{
			Type: corev1.PodConditionType(name), Status: value, LastTransitionTime: metav1.NewTime(time.Now()),
		})
	}
	raw, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		t.Error(err)
		return
	}
	_, err = m.client.CoreV1().Pods(p.Namespace).Patch(ctx, p.Name, types.StrategicMergePatchType, raw, metav1.PatchOptions{}, "status")
	if err != nil && ctx.Err() == nil {
		t.Logf("report pod %s: %v", p.Name, err)
	}
}
