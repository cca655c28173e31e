package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/emerald-platform/emerald/battery"
)

// env is what every command has: the batteries, the streams and the way to the
// cluster. Commands take it instead of reaching for globals.
type env struct {
	batteries []battery.Battery

	in  io.Reader
	out io.Writer // results, the only thing a script should read
	err io.Writer // progress and errors

	// kubeconfig and context are the persistent flags; "" means kubectl's
	// defaults.
	kubeconfig, context string
}

// restConfig returns the way to the cluster the user means, as kubectl would
// find it: the flags, $KUBECONFIG, ~/.kube/config. When none of those names a
// context, the machine's own platform is meant, if there is one.
func (e *env) restConfig() (*rest.Config, error) {
	cfg, err := e.clientConfig().ClientConfig()
	if err != nil && e.rootsOnly() {
		return nil, fmt.Errorf("find the cluster: the one of this machine is root's: run it again with sudo, " +
			"or get a kubeconfig of your own: mkdir -p ~/.kube && sudo emerald kubeconfig > ~/.kube/config")
	}
	if err != nil {
		return nil, fmt.Errorf("find the cluster: %w: start one here with: emerald up", err)
	}
	cfg.QPS = -1 // the API server's own queues are fairer, and say what they refuse
	// What the client library logs, a command says itself, in its error.
	klog.SetLogger(logr.Discard())
	return cfg, nil
}

// namespace returns the namespace that the user's context names, "default"
// where it names none.
func (e *env) namespace() string {
	ns, _, err := e.clientConfig().Namespace()
	if err != nil || ns == "" {
		return "default"
	}
	return ns
}

func (e *env) clientConfig() clientcmd.ClientConfig {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	overrides := &clientcmd.ConfigOverrides{}
	rules.ExplicitPath, overrides.CurrentContext = e.kubeconfigPath()
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides)
}

// kubeconfigPath returns the file and the context that the user means: what
// the flags say, else the context "emerald" of kubectl's own files, else the
// file of the machine's own platform. Each may be "", which leaves it to
// kubectl's rules.
func (e *env) kubeconfigPath() (path, context string) {
	if e.kubeconfig != "" || e.context != "" {
		return e.kubeconfig, e.context
	}
	raw, err := clientcmd.NewDefaultClientConfigLoadingRules().Load()
	if err == nil && raw.Contexts[contextName] != nil {
		return "", contextName
	}
	if admin := defaultDirs().InData("conf", "admin.kubeconfig"); readable(admin) {
		return admin, ""
	}
	return "", ""
}

// rootsOnly tells whether this machine has a platform that this user may not
// rule.
func (e *env) rootsOnly() bool {
	_, err := os.Stat(defaultDirs().InData("conf", "admin.kubeconfig"))
	return errors.Is(err, fs.ErrPermission)
}

// contextName is the context that `emerald up` writes into ~/.kube/config.
const contextName = "emerald"

func readable(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	f.Close()
	return true
}
