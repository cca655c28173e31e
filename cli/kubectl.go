package cli

import (
	"os"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	kubectl "k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/plugin"
)

// newKubectlCommand is upstream's kubectl, whole. It also answers when the
// program is called through a link named kubectl.
func newKubectlCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "kubectl",
		Short: "Kubernetes' own command line, built in",
		Long: `Upstream's kubectl, unchanged. Where ~/.kube/config has a context called
"emerald", or this machine runs Emerald, it speaks with that cluster.`,
		Example: `  emerald kubectl get pods -A
  ln -s $(command -v emerald) /usr/local/bin/kubectl`,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			flags := genericclioptions.NewConfigFlags(true).WithDeprecatedPasswordFlag()
			e.applyTo(flags)
			inner := kubectl.NewDefaultKubectlCommandWithArgs(kubectl.KubectlOptions{
				PluginHandler: kubectl.NewDefaultPluginHandler(plugin.ValidPluginFilenamePrefixes),
				Arguments:     append([]string{"kubectl"}, args...),
				ConfigFlags:   flags,
				IOStreams:     genericiooptions.IOStreams{In: e.in, Out: e.out, ErrOut: e.err},
			})
			inner.SetArgs(args)
			return inner.ExecuteContext(cmd.Context())
		},
	}
}

// applyTo makes kubectl speak with the cluster that emerald's own commands
// speak with, unless its arguments or $KUBECONFIG name another.
func (e *env) applyTo(flags *genericclioptions.ConfigFlags) {
	if os.Getenv("KUBECONFIG") != "" && e.kubeconfig == "" {
		return
	}
	path, context := e.kubeconfigPath()
	if path != "" {
		flags.KubeConfig = &path
	}
	if context != "" {
		flags.Context = &context
	}
}
