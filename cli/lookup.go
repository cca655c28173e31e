package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/emerald-platform/emerald/batteries/dns"
)

// newLookupCommand tells what a name resolves to where it runs. It is hidden:
// pods of the platform's own image, which has no other program, run it to show
// what a pod sees.
func newLookupCommand(e *env) *cobra.Command {
	var q dns.Question
	var output, serve string
	cmd := &cobra.Command{
		Use:    "lookup NAME [TYPE]",
		Short:  "Ask this machine's or pod's resolver for a name",
		Hidden: true,
		Args:   cobra.MaximumNArgs(2),
		Example: `  emerald lookup kubernetes.default
  emerald lookup _https._tcp.kubernetes.default.svc.cluster.local SRV
  emerald lookup 10.43.0.1 PTR -o json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if serve != "" {
				return serveLookups(cmd.Context(), serve)
			}
			if len(args) == 0 {
				return errors.New("look up a name: none given: try: emerald lookup kubernetes.default")
			}
			q.Name = args[0]
			if len(args) > 1 {
				q.Type = args[1]
			}
			answer, err := dns.Lookup(cmd.Context(), dns.ResolvConf, q)
			if err != nil {
				return err
			}
			if output == "json" {
				return json.NewEncoder(e.out).Encode(answer)
			}
			for _, r := range answer.Records {
				fmt.Fprintln(e.out, r)
			}
			if len(answer.Records) == 0 {
				return fmt.Errorf("look up %s of %q: %s says %s", answer.Type, answer.Name, answer.Server, answer.Code)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&q.Server, "server", "", "resolver to ask, as IP, IP:port or tls://IP%name, instead of the first one of "+dns.ResolvConf)
	cmd.Flags().BoolVar(&q.TCP, "tcp", false, "ask over TCP")
	cmd.Flags().StringVarP(&output, "output", "o", "", `"json" for the whole answer`)
	cmd.Flags().StringVar(&serve, "serve", "", "answer questions over HTTP at this address instead")
	return cmd
}

// serveLookups answers over HTTP until ctx ends.
func serveLookups(ctx context.Context, address string) error {
	srv := &http.Server{Addr: address, Handler: dns.LookupHandler(dns.ResolvConf), ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve lookups at %q: %w", address, err)
	}
	return nil
}
