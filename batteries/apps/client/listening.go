package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/emerald-platform/emerald/api/v1alpha1"
)

// Listening returns the TCP ports on which the App's newest copy that runs
// accepts connections from outside it, in order. It asks the copy itself, with
// `cat`, so it is an error where the image has none.
func (c *Client) Listening(ctx context.Context, app *v1alpha1.App) ([]int32, error) {
	pods, err := c.Pods(ctx, app)
	if err != nil {
		return nil, err
	}
	for i := range slices.Backward(pods) {
		pod := &pods[i]
		running := slices.ContainsFunc(pod.Status.ContainerStatuses, func(s corev1.ContainerStatus) bool { return s.State.Running != nil })
		if !running || pod.DeletionTimestamp != nil {
			continue
		}
		out, err := c.output(ctx, pod, "cat", "/proc/net/tcp", "/proc/net/tcp6")
		if err != nil {
			return nil, fmt.Errorf("ask pod %q where it listens: %w", pod.Name, err)
		}
		return listeners(bytes.NewReader(out)), nil
	}
	return nil, fmt.Errorf("app %q has no copy that runs", app.Name)
}

// output runs a command in a pod's app and returns what it printed.
func (c *Client) output(ctx context.Context, pod *corev1.Pod, command ...string) ([]byte, error) {
	req := c.core.CoreV1().RESTClient().Post().Namespace(pod.Namespace).Resource("pods").Name(pod.Name).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: "app", Command: command, Stdout: true}, scheme.ParameterCodec)
	exec, err := remotecommand.NewWebSocketExecutor(c.kube, "GET", req.URL().String())
	if err != nil {
		return nil, fmt.Errorf("run %q: %w", command, err)
	}
	var out bytes.Buffer
	if err := exec.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out}); err != nil {
		return nil, fmt.Errorf("run %q: %w", command, err)
	}
	return out.Bytes(), nil
}

// tcpListen is the state of a listening socket in /proc/net/tcp (proc(5)).
const tcpListen = "0A"

// listeners returns the ports of the listening sockets in the text of
// /proc/net/tcp and tcp6 that are not bound to a loopback address.
func listeners(r io.Reader) []int32 {
	var out []int32
	in := bufio.NewScanner(r)
	for in.Scan() {
		fields := strings.Fields(in.Text())
		if len(fields) < 4 || fields[3] != tcpListen {
			continue
		}
		address, port, ok := strings.Cut(fields[1], ":")
		number, err := strconv.ParseUint(port, 16, 16)
		if !ok || err != nil || number == 0 || loopback(address) {
			continue
		}
		if !slices.Contains(out, int32(number)) {
			out = append(out, int32(number))
		}
	}
	slices.Sort(out)
	return out
}

// loopback tells whether an address as /proc/net/tcp writes it, in words of four
// bytes in the machine's order, is 127.0.0.0/8, ::1, or the former within IPv6.
func loopback(address string) bool {
	raw, err := hex.DecodeString(address)
	if err != nil {
		return true
	}
	switch len(raw) {
	case 4:
		return raw[3] == 127
	case 16:
		one := [16]byte{12: 1}
		mapped := [12]byte{8: 0xff, 9: 0xff}
		return [16]byte(raw) == one || [12]byte(raw[:12]) == mapped && raw[15] == 127
	}
	return true
}
