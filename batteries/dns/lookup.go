package dns

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	mdns "github.com/miekg/dns"
)

// Answer is what a resolver said about one name.
type Answer struct {
	// Name is the full name, with a dot at its end, that the answer is about:
	// where the question was a short one, the one that was found.
	Name string `json:"name"`
	// Type is the type of record asked for, for example "A".
	Type string `json:"type"`
	// Code is the answer's code in the words of RFC 1035 and 2136: "NOERROR",
	// "NXDOMAIN", "SERVFAIL", ….
	Code string `json:"code"`
	// Records holds the values of the records of that type, sorted: addresses,
	// names, or "port target" for SRV. Empty with "NOERROR" means that the name
	// exists without such a record.
	Records []string `json:"records"`
	// Server is the address and port of the resolver.
	Server string `json:"server"`
}

// Question is what to look up.
type Question struct {
	// Name may be short: then the search list of the resolv.conf applies, as it
	// does for every program. With a dot at its end it is taken as it is.
	Name string
	// Type is a type of record; "" means A. With PTR, Name may be an address.
	Type string
	// Server is the resolver, written as in Config.Upstreams; "" means the first
	// of the resolv.conf.
	Server string
	// TCP asks over TCP from the start.
	TCP bool
}

// String says what is asked, for people.
func (q Question) String() string {
	way := ""
	if q.TCP {
		way = " over TCP"
	}
	if q.Type == "" {
		q.Type = "A"
	}
	return fmt.Sprintf("%s %q%s", q.Type, q.Name, way)
}

// ResolvConf is where a machine or a pod keeps its resolvers.
const ResolvConf = "/etc/resolv.conf"

// Lookup asks a resolver, in the way the resolvConf file demands, what it knows.
// It returns an error only when there was no answer: a denial is an answer.
func Lookup(ctx context.Context, resolvConf string, q Question) (Answer, error) {
	conf, err := mdns.ClientConfigFromFile(resolvConf)
	if err != nil {
		return Answer{}, fmt.Errorf("read %q: %w", resolvConf, err)
	}
	qtype, ok := mdns.StringToType[strings.ToUpper(q.Type)]
	if q.Type == "" {
		qtype, ok = mdns.TypeA, true
	}
	if !ok {
		return Answer{}, fmt.Errorf("look up %q: %q is no type of record: try A, AAAA, SRV, PTR, TXT", q.Name, q.Type)
	}
	server := q.Server
	if server == "" {
		if len(conf.Servers) == 0 {
			return Answer{}, fmt.Errorf("look up %q: %q names no resolver", q.Name, resolvConf)
		}
		server = net.JoinHostPort(conf.Servers[0], conf.Port)
	}
	names := conf.NameList(q.Name)
	if reverse, err := mdns.ReverseAddr(q.Name); err == nil && qtype == mdns.TypePTR {
		names = []string{reverse}
	}
	var last Answer
	for _, name := range names {
		in, err := ask(ctx, server, name, qtype, q.TCP)
		if err != nil {
			return Answer{}, fmt.Errorf("ask %s about %q: %w", server, name, err)
		}
		last = Answer{
			Name: name, Type: mdns.TypeToString[qtype], Code: mdns.RcodeToString[in.Rcode],
			Records: values(in.Answer, qtype), Server: server,
		}
		if len(last.Records) > 0 {
			return last, nil
		}
	}
	return last, nil
}

// askTimeout is longer than CoreDNS takes to find out that nobody outside
// answers, so that its verdict is heard.
const askTimeout = 8 * time.Second

// ask sends one question, again when the packet was lost, and over TCP when the
// answer did not fit.
func ask(ctx context.Context, server, name string, qtype uint16, tcp bool) (*mdns.Msg, error) {
	client := mdns.Client{Timeout: askTimeout}
	port := "53"
	if rest, secure := strings.CutPrefix(server, "tls://"); secure {
		addr, host, _ := strings.Cut(rest, "%")
		server, port = addr, "853"
		client.Net, client.TLSConfig = "tcp-tls", &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	} else if tcp {
		client.Net = "tcp"
	}
	if addr, err := netip.ParseAddr(server); err == nil {
		server = net.JoinHostPort(addr.String(), port)
	}
	m := new(mdns.Msg).SetQuestion(mdns.Fqdn(name), qtype)
	m.SetEdns0(1232, false)
	var in *mdns.Msg
	var err error
	for range 2 {
		in, _, err = client.ExchangeContext(ctx, m, server)
		if err == nil && in.Truncated && client.Net == "" {
			client.Net = "tcp"
			continue
		}
		if err == nil || ctx.Err() != nil {
			break
		}
	}
	return in, err
}

// values returns what the records of the given type say.
func values(records []mdns.RR, qtype uint16) []string {
	out := []string{}
	for _, rr := range records {
		if rr.Header().Rrtype != qtype {
			continue
		}
		switch r := rr.(type) {
		case *mdns.A:
			out = append(out, r.A.String())
		case *mdns.AAAA:
			out = append(out, r.AAAA.String())
		case *mdns.PTR:
			out = append(out, r.Ptr)
		case *mdns.SRV:
			out = append(out, fmt.Sprintf("%d %s", r.Port, r.Target))
		default:
			out = append(out, strings.TrimPrefix(rr.String(), rr.Header().String()))
		}
	}
	slices.Sort(out)
	return out
}

// LookupHandler answers questions over HTTP, for those who want to know what a
// pod sees without a program in it: GET /?name=NAME&type=TYPE&server=IP:PORT
// returns an [Answer] as JSON, or status 502 and the reason when no resolver
// answered; GET /resolvers returns the resolvers that the file names, as a JSON
// list. It is safe for concurrent use.
func LookupHandler(resolvConf string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		form := r.URL.Query()
		answer, err := Lookup(r.Context(), resolvConf, Question{
			Name: form.Get("name"), Type: form.Get("type"), Server: form.Get("server"), TCP: form.Get("tcp") == "true",
		})
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		reply(w, answer)
	})
	mux.HandleFunc("GET /resolvers", func(w http.ResponseWriter, _ *http.Request) {
		conf, err := mdns.ClientConfigFromFile(resolvConf)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		reply(w, append([]string{}, conf.Servers...))
	})
	return mux
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	// The client is gone when this fails.
	_ = json.NewEncoder(w).Encode(v)
}
