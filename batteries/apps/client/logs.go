package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/emerald-platform/emerald/api/v1alpha1"
)

// LogOptions say which part of the logs is wanted.
type LogOptions struct {
	Follow   bool
	Previous bool          // of the life before the last restart
	Tail     int64         // lines of each copy; negative means all
	Since    time.Duration // 0 means from the beginning
}

// maxLine is the longest line of a log that is passed on whole; longer ones are
// cut into pieces.
const maxLine = 1 << 20

// Logs calls line with each line that the copies of an App wrote, from one
// goroutine at a time, with the name of the copy's pod. Lines of one copy keep
// their order. With Follow it goes on until ctx ends, then returns nil, and takes
// in copies that start meanwhile.
func (c *Client) Logs(ctx context.Context, app *v1alpha1.App, o LogOptions, line func(pod, text string) error) error {
	var mu sync.Mutex
	each := func(pod, text string) error {
		mu.Lock()
		defer mu.Unlock()
		return line(pod, text)
	}
	g, ctx := errgroup.WithContext(ctx)
	seen := map[string]bool{}
	read := func(pod corev1.Pod) {
		life, ok := lifeOf(&pod)
		if !ok || seen[life] {
			return
		}
		seen[life] = true
		g.Go(func() error { return c.readLog(ctx, pod, o, each) })
	}

	pods, err := c.Pods(ctx, app)
	if err != nil {
		return err
	}
	if len(pods) == 0 && !o.Follow {
		return fmt.Errorf("app %q has no copies: see why with: emerald app show %s", app.Name, app.Name)
	}
	for _, pod := range pods {
		read(pod)
	}
	if o.Follow {
		g.Go(func() error { return c.newPods(ctx, app, read) })
	}
	err = g.Wait()
	if o.Follow && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// newPods calls found, from one goroutine, with the App's pods as they change.
func (c *Client) newPods(ctx context.Context, app *v1alpha1.App, found func(corev1.Pod)) error {
	for ctx.Err() == nil {
		w, err := c.api.Watch(ctx, &corev1.PodList{}, client.InNamespace(app.Namespace), client.MatchingLabels{v1alpha1.LabelApp: app.Name})
		if err != nil {
			return fmt.Errorf("watch the pods of app %q: %w", app.Name, explain(err))
		}
		for e := range w.ResultChan() {
			if pod, ok := e.Object.(*corev1.Pod); ok && e.Type != watch.Deleted {
				found(*pod)
			}
		}
		w.Stop()
	}
	return context.Cause(ctx)
}

// lifeOf names the present or last life of a pod's app, of which there is one
// for each restart; it is false where there is no log to read yet.
func lifeOf(pod *corev1.Pod) (string, bool) {
	for _, s := range pod.Status.ContainerStatuses {
		if s.State.Running != nil || s.State.Terminated != nil || s.LastTerminationState.Terminated != nil {
			return fmt.Sprintf("%s/%d", pod.UID, s.RestartCount), true
		}
	}
	return "", false
}

func (c *Client) readLog(ctx context.Context, pod corev1.Pod, o LogOptions, line func(pod, text string) error) error {
	opts := &corev1.PodLogOptions{Container: "app", Follow: o.Follow, Previous: o.Previous}
	if o.Tail >= 0 {
		opts.TailLines = &o.Tail
	}
	if o.Since > 0 {
		seconds := max(1, int64(o.Since.Seconds()))
		opts.SinceSeconds = &seconds
	}
	stream, err := c.core.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, opts).Stream(ctx)
	if apierrors.IsNotFound(err) || (apierrors.IsBadRequest(err) && !o.Previous) {
		// It went, or has not begun: there is nothing to read.
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the log of pod %q: %w", pod.Name, explain(err))
	}
	defer stream.Close()
	return lines(stream, func(text string) error { return line(pod.Name, text) })
}

// lines calls each with the lines of r, without their ends.
func lines(r io.Reader, each func(string) error) error {
	in := bufio.NewReaderSize(r, maxLine)
	for {
		text, err := in.ReadSlice('\n')
		if len(text) > 0 {
			if text[len(text)-1] == '\n' {
				text = text[:len(text)-1]
			}
			if err := each(string(text)); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, bufio.ErrBufferFull):
		case err != nil:
			return fmt.Errorf("read the log: %w", err)
		}
	}
}
