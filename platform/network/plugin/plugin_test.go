package plugin

import (
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
)

// FuzzOpen gives the plugin any configuration on its standard input and any
// CNI_ARGS.
func FuzzOpen(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"1.1.0","name":"emerald","type":"emerald-cni","podCIDRs":["10.42.0.0/24"],"mtu":1450,"stateDir":"/s",
		"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":80,"protocol":"tcp","hostIP":"127.0.0.1"}]}}`), "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b")
	f.Add([]byte(`{"stateDir":"/s","podCIDRs":[""],"prevResult":{}}`), "=;K8S_POD_NAME")
	f.Add([]byte("null"), "")
	f.Fuzz(func(t *testing.T, stdin []byte, args string) {
		c, d, err := open(&skel.CmdArgs{StdinData: stdin})
		if err == nil && (c == nil || d == nil || c.StateDir == "") {
			t.Errorf("%q was taken, and is %+v", stdin, c)
		}
		if name := podName(args); name != "" && !strings.Contains(args, name[strings.Index(name, "/")+1:]) {
			t.Errorf("%q names pod %q", args, name)
		}
	})
}
